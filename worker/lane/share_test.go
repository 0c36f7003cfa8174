package lane

import (
	"fmt"
	"slices"
	"testing"
)

func TestShareIsEvenAndComplete(t *testing.T) {
	for workers := 1; workers <= 12; workers++ {
		for lanes := 1; lanes <= 16; lanes++ {
			live := names(workers)
			var all []int
			least, most := lanes, 0
			for _, w := range live {
				mine := share(w, live, lanes)
				all = append(all, mine...)
				least, most = min(least, len(mine)), max(most, len(mine))
			}
			slices.Sort(all)
			if len(all) != lanes || len(slices.Compact(all)) != lanes {
				t.Errorf("%d workers, %d lanes: %v", workers, lanes, all)
			}
			if limit := (lanes + workers - 1) / workers; most > limit {
				t.Errorf("%d workers, %d lanes: one has %d, want at most %d", workers, lanes, most, limit)
			}
			if workers == 2 && least == 0 && lanes > 1 {
				t.Errorf("%d lanes: one of two workers is idle", lanes)
			}
		}
	}
}

func TestShareDoesNotDependOnTheOrderAndKnowsStrangers(t *testing.T) {
	a := share("w1", []string{"w0", "w1", "w2"}, 8)
	if b := share("w1", []string{"w2", "w1", "w0"}, 8); !slices.Equal(a, b) {
		t.Errorf("%v and %v", a, b)
	}
	if s := share("stranger", names(3), 8); s != nil {
		t.Errorf("a worker without a lease gets %v", s)
	}
}

// When a worker leaves, few lanes move between those that stay.
func TestShareMovesLittle(t *testing.T) {
	live := names(8)
	moved := 0
	for _, gone := range live {
		rest := slices.DeleteFunc(slices.Clone(live), func(w string) bool { return w == gone })
		for _, w := range rest {
			after := share(w, rest, 64)
			for _, lane := range share(w, live, 64) {
				if !slices.Contains(after, lane) {
					moved++
				}
			}
		}
	}
	if moved > 8*64/4 { // hash modulo workers would move 7 of 8
		t.Errorf("%d of %d lanes moved between workers that stayed", moved, 8*64)
	}
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("worker-%d", i)
	}
	return out
}

func TestParseDelivery(t *testing.T) {
	want := delivery{deliveries: 2, streamSeq: 300, consumerSeq: 45, pending: 7}
	for _, ack := range []string{
		"$JS.ACK.UP_0.work.2.300.45.1763952000000000000.7",
		"$JS.ACK._.h4sh.UP_0.work.2.300.45.1763952000000000000.7.rnd",
		"$JS.ACK.hub.h4sh.UP_0.work.2.300.45.1763952000000000000.7",
	} {
		if d, ok := parseDelivery(ack); !ok || d != want {
			t.Errorf("%s: %+v, %v", ack, d, ok)
		}
	}
	for _, ack := range []string{"", "_INBOX.x", "$JS.ACK.UP_0.work.2.300", "$JS.ACK.UP_0.work.a.300.45.17.7",
		"$JS.ACK.UP_0.work..300.45.17.7", "$JS.ACK.UP_0.work.-1.300.45.17.7", "$JS.ACK.UP_0.work.99999999999999999999.300.45.17.7"} {
		if d, ok := parseDelivery(ack); ok {
			t.Errorf("%s: %+v", ack, d)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = parseDelivery("$JS.ACK.UP_0.work.2.300.45.1763952000000000000.7") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
