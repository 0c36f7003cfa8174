package tally_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
)

// What several processes timed is, merged, what one process would have timed.
func TestMergedTimesAreThoseOfOne(t *testing.T) {
	var one, merged tally.Times
	var parts [3]tally.Times
	var all []time.Duration
	for i := range 30_000 {
		// The third process sees a slow server, so that no part is like the whole.
		d := time.Duration(rand.ExpFloat64() * float64(time.Millisecond) * float64(1+i%3*50))
		all = append(all, d)
		one.Record(tally.Ack, d)
		parts[i%3].Record(tally.Ack, d)
	}
	parts[1].Record(tally.Back, time.Second)
	for i := range parts {
		b, err := json.Marshal(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var back tally.Times
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		merged.Merge(&back)
	}
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		got := merged.Quantile(tally.Ack, q)
		if got != one.Quantile(tally.Ack, q) {
			t.Errorf("q %v: merged %v, one %v", q, got, one.Quantile(tally.Ack, q))
		}
		// The value of that rank, the first being of rank 1: its neighbour can be some per
		// cent away where values are rare.
		want := all[int(q*float64(len(all))+0.5)-1]
		if ratio := float64(got) / float64(want); ratio < 0.98 || ratio > 1.02 {
			t.Errorf("q %v: %v, want %v", q, got, want)
		}
	}
	if n := merged.Count(tally.Ack); n != 30_000 || merged.Count(tally.Back) != 1 || merged.Count(tally.Login) != 0 {
		t.Errorf("counts %d, %d, %d", n, merged.Count(tally.Back), merged.Count(tally.Login))
	}
}

func TestTimesBeyondTheLimitsAreKept(t *testing.T) {
	var x tally.Times
	x.Record(tally.Lag, -time.Second)
	x.Record(tally.Lag, 24*time.Hour)
	if x.Count(tally.Lag) != 2 || x.Quantile(tally.Lag, 1) < 29*time.Minute {
		t.Errorf("%d values, the largest %v", x.Count(tally.Lag), x.Quantile(tally.Lag, 1))
	}
}

func TestCountsAddAndSurviveJSON(t *testing.T) {
	var a, b tally.Counts
	seen := map[string]bool{}
	for c := tally.Queued; c <= tally.Missing; c++ {
		a[c], b[c] = int64(c)+1, 1000
		if seen[c.String()] || c.String() == "" {
			t.Errorf("count %d has the name %q", c, c)
		}
		seen[c.String()] = true
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var back tally.Counts
	if err := json.Unmarshal(text, &back); err != nil || back != a {
		t.Fatalf("%v: %v, want %v", err, back, a)
	}
	back.Add(b)
	for c := range back {
		if back[c] != int64(c)+1001 {
			t.Errorf("%v: %d", tally.Count(c), back[c])
		}
	}
}
