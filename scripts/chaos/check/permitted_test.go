package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

func cutOffBob(r *history.Record) { r.Code = 1 }

// again5 lets bob's second life begin one message earlier, and show that again.
func again5(t *testing.T, recs []history.Record) []history.Record {
	i := indexOf(recs, history.Event, cidAt("slow", "bob"))
	again := recs[i]
	again.Life = 2
	recs[indexOf(recs, history.Begin, func(r *history.Record) bool { return r.Life == 2 })].Cursors[theConv] = 5
	return insert(history.Event, cidAt("z", "bob"), again)(t, recs)
}

// both applies one change after the other.
func both(first, second func(*testing.T, []history.Record) []history.Record) func(*testing.T, []history.Record) []history.Record {
	return func(t *testing.T, recs []history.Record) []history.Record { return second(t, first(t, recs)) }
}

// notResumed says of the last connection of ann that it did not resume.
var notResumed = edit(history.Open, func(r *history.Record) bool { return r.Conn == "ann#2" }, func(r *history.Record) { r.Resumed = false })

// late makes bob send w and z, and ann get z only, on her second connection.
func late(t *testing.T, recs []history.Record) []history.Record {
	w := send("bob", "w", "ann")
	w.Life = 2
	recs = insert(history.Send, cid("z"), w)(t, recs)
	var out []history.Record
	for _, r := range recs {
		if r.CID == "z" && r.Seq == 7 {
			first := r
			first.CID, first.Body, r.Seq = "w", "body of w", 8
			if r.Kind != history.Wire || r.Dev == "bob" {
				out = append(out, first)
			}
		}
		if r.Kind == history.Read {
			r.Seq = 8
		}
		out = append(out, r)
	}
	return out
}

// crossing makes bob's first life send p at its end, which is stored behind z of the next.
func crossing(t *testing.T, recs []history.Record) []history.Record {
	recs = insert(history.End, any1, send("bob", "p", "ann"))(t, recs)
	var out []history.Record
	for _, r := range recs {
		if r.Kind == history.Read {
			r.Seq = 8
		}
		out = append(out, r)
		if r.CID == "z" && r.Seq == 7 {
			r.CID, r.Body, r.Seq = "p", "body of p", 8
			out = append(out, r)
		}
	}
	return out
}

// deadLate makes the poison wait for 11 s.
func deadLate(t *testing.T, recs []history.Record) []history.Record {
	recs[indexOf(recs, history.Poison, any1)].T -= int64(5 * time.Second)
	recs[indexOf(recs, history.Dead, any1)].T += int64(4 * time.Second)
	return recs
}

var bobEnds = edit(history.End, dev("bob"), cutOffBob)

// What looks like a broken rule and is none, each beside the change that makes it one.
func TestWhatIsPermittedIsNotReported(t *testing.T) {
	bare := send("bob", "bare", "ann")
	reuse, known := send("bob", "x", "ann"), ack("bob", "x", 4)
	reuse.Reuse, reuse.Body, known.Life = true, "another", 2
	for _, c := range []struct {
		name   string
		broken Rule // by the change alone
		do     func(*testing.T, []history.Record) []history.Record
		excuse func(*testing.T, []history.Record) []history.Record
	}{
		{"events are repeated after a crash", Channel, again5, bobEnds},
		{"a crash loses a send", Unresolved, insert(history.End, any1, bare), bobEnds},
		{"a crash forgets a send with a used id", Reuse, both(insert(history.End, any1, reuse), insert(history.Send, cid("z"), known)), bobEnds},
		{"a life without an end is a crash", Unresolved, insert(history.End, any1, bare), drop(history.End, any1)},
		{"after a crash the order is open", SenderOrder, crossing, bobEnds},
		{"what was sent before a new login need not come on it", Hole, late, both(notResumed, func(t *testing.T, recs []history.Record) []history.Record {
			return move(recs, indexOf(recs, history.Send, cid("w")), indexOf(recs, history.Close, dev("ann")))
		})},
		{"a resync ends what is promised", Hole, late, insert(history.Wire, cidAt("z", "ann"), history.Record{Kind: history.Resync, Dev: "ann", Life: 1, Conn: "ann#2"})},
		{"a hole counts only while the connection lasts", Hole, late, insert(history.Lag, any1,
			history.Record{Kind: history.Close, Dev: "ann", Life: 1, Conn: "ann#2", Code: 1006})},
		{"a put behind the end of its connection goes nowhere", Resolve, insert(history.Poison, any1, put("ann", "m1", "bob", "ann#0")),
			insert(history.Send, any1, history.Record{Kind: history.Close, Dev: "ann", Life: 1, Conn: "ann#0"})},
		{"the end of a connection answers a put", Resolve, drop(history.Never, cid("nobody")), insert(history.Poison, any1,
			history.Record{Kind: history.Close, Dev: "ann", Life: 1, Conn: "ann#1", Code: 4408})},
		{"the end of a life answers a put", Resolve, drop(history.Never, cid("nobody")), insert(history.Poison, any1,
			history.Record{Kind: history.End, Dev: "ann", Life: 1, Code: 1})},
		{"the next life answers a put", Resolve, drop(history.Never, cid("nobody")), insert(history.Poison, any1,
			history.Record{Kind: history.Begin, User: "ann", Dev: "ann", Life: 2})},
		{"a refusal for now answers a put", Resolve, drop(history.Never, cid("nobody")), insert(history.Poison, any1,
			history.Record{Kind: history.Later, Dev: "ann", Life: 1, Conn: "ann#1", CID: "nobody", Code: 2001})},
		{"a slow device says nothing about answers", Resolve, drop(history.Never, cid("nobody")),
			edit(history.Begin, dev("ann"), func(r *history.Record) { r.Slow = true })},
		{"a poison goes with all data", Poisoned, drop(history.Dead, any1), insert(history.Send, cid("slow"), history.Record{Kind: history.Wiped, T: 1})},
		{"a poison waits for the end of a fault", Poisoned, deadLate,
			edit(history.Fault, any1, func(r *history.Record) { r.T = int64(14 * time.Second) })},
		{"a killer of workers may take longer", Poisoned, deadLate,
			edit(history.Poison, any1, func(r *history.Record) { r.Kill = true })},
		{"a later fault puts service off", Service, edit(history.Fault, any1, func(r *history.Record) { r.Kill = true }),
			func(t *testing.T, recs []history.Record) []history.Record {
				later := history.Record{T: int64(30 * time.Second), Kind: history.Fault, Fault: 3, Name: "kill worker", Kill: true}
				return slices.Insert(recs, indexOf(recs, history.Heal, any1), later)
			}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			if rep := check(t, c.do(t, story())); rep.Counts[c.broken] == 0 {
				t.Fatalf("%q is not broken without the excuse: %v", c.broken, rep.Counts)
			}
			if rep := check(t, c.excuse(t, c.do(t, story()))); rep.Counts[c.broken] != 0 {
				t.Fatalf("%q is broken in spite of the excuse\n%s", c.broken, rep)
			}
		})
	}
}
