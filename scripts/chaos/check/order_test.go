package check

import (
	"testing"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// rowsOf is the final history of messages that are stored in this order.
func rowsOf(cids ...string) []history.Record {
	var recs []history.Record
	for i, cid := range cids {
		r := stored(history.Row, "", cid, "ann", "bob", int64(i+1))
		r.Life, r.User = 0, "ann"
		recs = append(recs, r)
	}
	return append(recs, history.Record{Kind: history.Done})
}

func inOrder(groups ...[]history.Record) []history.Record {
	p := &tape{}
	p.add(history.Record{Kind: history.Begin, User: "ann", Dev: "ann", Life: 1, Fresh: true})
	for _, g := range groups {
		p.add(g...)
	}
	return p.recs
}

// c was known to be stored before a was sent; that b stands between them hides nothing.
func TestOrderInRealTimeLooksBeyondNeighbours(t *testing.T) {
	m := judged(inOrder([]history.Record{send("ann", "b", "bob"), send("ann", "c", "bob"), wire("ann", "ann#1", "c", "ann", "bob", 3),
		send("ann", "a", "bob")}, rowsOf("a", "b", "c")), DefaultLimits())
	if n := len(m.report.times[RealTime]); n != 1 {
		t.Errorf("reported %d times", n)
	}
}

// The first life sends a, which comes to nobody, and b. The next one no longer knows a.
// When it says a again, a rightly stands behind b; when it does not, a was overtaken.
func TestARepetitionAfterACrashMayStandLater(t *testing.T) {
	again := send("ann", "a", "bob")
	again.Life, again.Again = 2, true
	first := []history.Record{send("ann", "a", "bob"), send("ann", "b", "bob"), {Kind: history.End, Dev: "ann", Life: 1, Code: 1},
		{Kind: history.Begin, User: "ann", Dev: "ann", Life: 2}}
	for _, c := range []struct {
		name   string
		middle []history.Record
		want   int
	}{
		{"overtaken", nil, 1},
		{"said again", []history.Record{again}, 0},
		{"said again when it was stored", []history.Record{wire("ann", "ann#1", "a", "ann", "bob", 2), again}, 1},
	} {
		m := judged(inOrder(first, c.middle, rowsOf("b", "a")), DefaultLimits())
		if n := len(m.report.times[SenderOrder]); n != c.want {
			t.Errorf("%s: reported %d times, want %d", c.name, n, c.want)
		}
	}
}
