package tally

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	var p Pace
	for i := range 40 { // 25 in each tenth of a second from the 2nd second on, 1 before
		n := int64(1)
		if i >= 20 {
			n = 25
		}
		p.add(begin.UnixNano()/int64(paceGrain)+int64(i), n)
	}
	b, err := json.Marshal(Paces{Moved: p})
	if err != nil {
		t.Fatal(err)
	}
	var q, sum Paces
	if err := json.Unmarshal(b, &q); err != nil {
		t.Fatal(err)
	}
	sum.Merge(q)
	sum.Merge(q)
	if most := sum.Moved.Most(begin); most != 2*250 {
		t.Errorf("%d in a second, want 500", most)
	}
	if most := sum.Moved.Most(begin.Add(3500 * time.Millisecond)); most != 2*125 {
		t.Errorf("%d from a moment on, want 250", most)
	}
}

func TestSpread(t *testing.T) {
	var times Times
	for _, ms := range []int{1, 4, 6, 30, 2000} {
		times.Record(Back, time.Duration(ms)*time.Millisecond)
	}
	got := times.Spread(Back, []time.Duration{5 * time.Millisecond, 50 * time.Millisecond})
	if !slices.Equal(got, []int64{2, 2, 1}) {
		t.Errorf("spread %v", got)
	}
}
