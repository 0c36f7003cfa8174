package check

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// at gives a record a time in seconds.
func at(seconds int64, r history.Record) history.Record {
	return withTime(r, seconds*int64(time.Second))
}

func breaks(number int, from int64, kill bool) history.Record {
	return at(from, history.Record{Kind: history.Fault, Fault: number, Name: "x", Kill: kill})
}

func heals(number int, t int64) history.Record {
	return at(t, history.Record{Kind: history.Heal, Fault: number})
}

// A send at 105 s (or as named) that is answered at 130 s, around the fault number 1 at
// 100 s: what counts as its outage, and what of that is judged.
func TestWhatCountsAsAnOutage(t *testing.T) {
	said := []history.Record{at(105, send("ann", "m", "bob")), at(130, ack("ann", "m", 1))}
	end := func(code int) history.Record {
		return at(110, history.Record{Kind: history.End, Dev: "ann", Life: 1, Code: code})
	}
	for _, c := range []struct {
		name            string
		recs            []history.Record
		longest, judged int64 // seconds
	}{
		{"a kill", append([]history.Record{breaks(1, 100, true)}, said...), 25, 25},
		{"a cut", append([]history.Record{breaks(1, 100, false), heals(1, 120)}, said...), 25, 10},
		{"sent just before", []history.Record{breaks(1, 100, true), at(99, send("ann", "m", "bob")), at(130, ack("ann", "m", 1))}, 30, 30},
		{"sent long before", []history.Record{breaks(1, 100, true), at(90, send("ann", "m", "bob")), at(130, ack("ann", "m", 1))}, 0, 0},
		{"never answered", []history.Record{breaks(1, 100, true), at(105, send("ann", "m", "bob")), at(150, history.Record{Kind: history.Done})}, 45, 45},
		{"never answered after a crash", []history.Record{breaks(1, 100, true), at(105, send("ann", "m", "bob")), end(1), at(150, history.Record{Kind: history.Done})}, 0, 0},
		{"never answered by a life without an end", []history.Record{breaks(1, 100, true), at(105, send("ann", "m", "bob")),
			at(110, history.Record{Kind: history.Begin, User: "ann", Dev: "ann", Life: 2}), at(150, history.Record{Kind: history.Done})}, 0, 0},
		{"the device was off", append([]history.Record{breaks(1, 100, true), end(0)}, said...), 0, 0},
		{"the device is slow", append([]history.Record{breaks(1, 100, true), at(1, history.Record{Kind: history.Begin, User: "ann", Dev: "ann", Life: 1, Slow: true})}, said...), 0, 0},
		{"a second kill", append([]history.Record{breaks(1, 100, true), breaks(2, 112, true)}, said...), 25, 18},
		{"a third that comes before service is back after the second", append([]history.Record{breaks(1, 100, true), breaks(2, 112, true), breaks(3, 120, true)}, said...), 25, 10},
		{"a second kill when service was overdue", append([]history.Record{breaks(1, 100, true), breaks(2, 117, true)}, said...), 25, 25},
		{"another answer came before", append([]history.Record{breaks(1, 100, true), at(103, send("ann", "n", "bob")), at(107, ack("ann", "n", 2))}, said...), 25, 4},
		{"an answer before service was due", append([]history.Record{breaks(1, 100, false), heals(1, 120), at(103, send("ann", "n", "bob")), at(107, ack("ann", "n", 2))}, said...), 25, 10},
		{"an older cut", append([]history.Record{breaks(2, 50, false), heals(2, 108), breaks(1, 100, true)}, said...), 25, 22},
		{"an older cut that was over", append([]history.Record{breaks(2, 50, false), heals(2, 99), breaks(1, 100, true)}, said...), 25, 25},
	} {
		recs := append([]history.Record{at(0, history.Record{Kind: history.Begin, User: "ann", Dev: "ann", Life: 1})}, c.recs...)
		slices.SortStableFunc(recs, func(a, b history.Record) int { return cmp.Compare(a.T, b.T) })
		m := judged(recs, DefaultLimits())
		i := slices.IndexFunc(m.faults, func(f fault) bool { return f.number == 1 })
		o := m.outages()[i]
		if o.longest/int64(time.Second) != c.longest || o.judged/int64(time.Second) != c.judged {
			t.Errorf("%s: %s, judged %s; want %d s and %d s", c.name, time.Duration(o.longest), time.Duration(o.judged), c.longest, c.judged)
		}
	}
}

// While a device is off or slow, its waiting is no latency.
func TestWaitingWhileADeviceIsOffIsNoLatency(t *testing.T) {
	recs := story()
	if n := check(t, recs).Stats.Ack.N; n != 7 {
		t.Fatalf("%d latencies in the story", n)
	}
	recs = insert(history.Heal, any1, history.Record{Kind: history.End, Dev: "ann", Life: 1})(t, recs)
	if n := check(t, recs).Stats.Ack.N; n != 6 {
		t.Errorf("%d latencies when ann's life ended before an answer", n)
	}
}

// A limit begins to count when service is due again.
func TestWhenALimitBeginsToCount(t *testing.T) {
	for _, c := range []struct {
		name string
		recs []history.Record
		want int64
	}{
		{"no fault", nil, 100},
		{"a fault at work", []history.Record{breaks(1, 90, false), heals(1, 107)}, 122},
		{"one that begins within the limit", []history.Record{breaks(1, 109, false), heals(1, 125)}, 140},
		{"one that begins later", []history.Record{breaks(1, 111, false), heals(1, 125)}, 100},
		{"one after the other", []history.Record{breaks(1, 109, false), heals(1, 115), breaks(2, 124, false), heals(2, 130)}, 145},
		{"one healed just before", []history.Record{breaks(1, 80, false), heals(1, 95)}, 110},
		{"one whose service is back", []history.Record{breaks(1, 80, false), heals(1, 84)}, 100},
		{"a kill that nobody heals", []history.Record{breaks(1, 105, true)}, 120},
	} {
		m := judged(c.recs, DefaultLimits())
		if got := m.counts(100*int64(time.Second), 10*int64(time.Second)) / int64(time.Second); got != c.want {
			t.Errorf("%s: counts from %d s, want %d s", c.name, got, c.want)
		}
	}
}

// One fault puts no answer off; one that comes on top of it does.
func TestWhenAnAnswerIsDue(t *testing.T) {
	for _, c := range []struct {
		name string
		recs []history.Record
		want int64
	}{
		{"no fault", nil, 120},
		{"one fault", []history.Record{breaks(1, 95, false), heals(1, 119)}, 120},
		{"one fault after the other, whose service was back", []history.Record{breaks(1, 60, true), breaks(2, 101, false), heals(2, 119)}, 120},
		{"a second one on top of it", []history.Record{breaks(1, 95, false), heals(1, 104), breaks(2, 110, true)}, 130},
		{"a second one that lasts", []history.Record{breaks(1, 99, true), breaks(2, 110, false), heals(2, 117)}, 137},
		{"a second one that comes later", []history.Record{breaks(1, 99, true), breaks(2, 121, true)}, 120},
	} {
		m := judged(c.recs, DefaultLimits())
		if got := m.answerDue(100*int64(time.Second)) / int64(time.Second); got != c.want {
			t.Errorf("%s: due at %d s, want %d s", c.name, got, c.want)
		}
	}
}

// Faults that never end put a poison off for so long and no longer.
func TestAPoisonIsNotPutOffForEver(t *testing.T) {
	for found, want := range map[int64]int{138: 0, 142: 1} {
		recs := []history.Record{at(100, history.Record{Kind: history.Poison, CID: "p"})}
		for i := range 10 {
			recs = append(recs, breaks(i+1, 101+8*int64(i), true))
		}
		recs = append(recs, at(found, history.Record{Kind: history.Dead, CID: "p"}), at(200, history.Record{Kind: history.Done}))
		slices.SortStableFunc(recs, func(a, b history.Record) int { return cmp.Compare(a.T, b.T) })
		m := judged(recs, DefaultLimits())
		if got := len(m.report.times[Poisoned]); got != want {
			t.Errorf("dead after %d s: %d violations, want %d", found-100, got, want)
		}
	}
}
