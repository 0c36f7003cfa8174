package report_test

import (
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/report"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// Of a thousand values, each percentile is the one of its rank: they double from one
// rank that is asked for, or is a neighbour of one, to the next.
func TestSpreadOfAThousand(t *testing.T) {
	var times tally.Times
	for rank := 1; rank <= 1000; rank++ {
		ms := 1
		for _, upTo := range []int{500, 900, 980, 990, 998, 999} {
			if rank > upTo {
				ms *= 2
			}
		}
		times.Record(tally.Ack, time.Duration(ms)*time.Millisecond)
	}
	got := report.SpreadOf(&times, tally.Ack)
	for name, v := range map[string]struct{ got, want float64 }{
		"p50": {got.P50, 1}, "p90": {got.P90, 2}, "p99": {got.P99, 8}, "p99.9": {got.P999, 32}, "max": {got.Max, 64},
		"mean": {got.Mean, (500*1 + 400*2 + 80*4 + 10*8 + 8*16 + 1*32 + 1*64) / 1000.0},
	} {
		if v.got < v.want*0.98 || v.got > v.want*1.02 {
			t.Errorf("%s is %v ms, want %v", name, v.got, v.want)
		}
	}
	if got.Count != 1000 {
		t.Errorf("%d values", got.Count)
	}
}
