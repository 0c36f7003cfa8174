package check

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// tape is a history that is being made. Its clock moves on with each record.
type tape struct {
	now  time.Duration
	recs []history.Record
}

func (p *tape) add(recs ...history.Record) {
	for _, r := range recs {
		p.now += 10 * time.Millisecond
		r.T = int64(p.now)
		p.recs = append(p.recs, r)
	}
}

func (p *tape) at(t time.Duration) { p.now = max(p.now, t) }

const theConv = "d:ann:bob"

// Each user of the story has one device with the name of the user.
func send(user, cid, to string) history.Record {
	return history.Record{Kind: history.Send, User: user, Dev: user, Life: 1, CID: cid, To: to, Body: "body of " + cid}
}

func put(user, cid, to string, conn string) history.Record {
	return history.Record{Kind: history.Put, Dev: user, Life: 1, Conn: conn, CID: cid, To: to}
}

func stored(k history.Kind, dev, cid, from, to string, seq int64) history.Record {
	return history.Record{Kind: k, Dev: dev, Life: 1, Conv: theConv, Seq: seq, CID: cid, From: from, To: to, Body: "body of " + cid}
}

func wire(dev, conn, cid, from, to string, seq int64) history.Record {
	r := stored(history.Wire, dev, cid, from, to, seq)
	r.Conn = conn
	return r
}

func ack(dev, cid string, seq int64) history.Record {
	return history.Record{Kind: history.Ack, Dev: dev, Life: 1, CID: cid, Conv: theConv, Seq: seq}
}

// arrive is a message of ann or bob as both get it on their connections.
func (p *tape) arrive(from, cid string, seq int64, conns map[string]string) {
	to := map[string]string{"ann": "bob", "bob": "ann"}[from]
	p.add(wire(from, conns[from], cid, from, to, seq), ack(from, cid, seq), stored(history.Event, from, cid, from, to, seq),
		wire(to, conns[to], cid, from, to, seq), stored(history.Event, to, cid, from, to, seq))
}

func start(user string, life int) []history.Record {
	return []history.Record{{Kind: history.Begin, User: user, Dev: user, Life: life, Fresh: life == 1},
		{Kind: history.Open, Dev: user, Life: life, Conn: user + "#1", Edge: "e1"}, {Kind: history.Synced, Dev: user, Life: life}}
}

// story is a small history with something of everything, in which no rule is broken.
//
// Ann says m1, m2 and m3 in one go, m1 again, and m2 with another body; what she says to
// nobody is refused. x of Bob and y of Ann cross. Ann reconnects and resumes. While the
// store is partitioned, slow waits 17 s. Bob ends well and comes back, and says z. Then
// everything is quiet for a minute. Carol only listens.
func story() []history.Record {
	p := &tape{}
	conns := map[string]string{"ann": "ann#1", "bob": "bob#1"}
	p.add(history.Record{Kind: history.Run, Note: "a story"})
	for _, user := range []string{"ann", "bob", "carol"} {
		p.add(start(user, 1)...)
	}
	p.add(send("ann", "m1", "bob"), send("ann", "m2", "bob"), send("ann", "m3", "bob"),
		put("ann", "m1", "bob", "ann#1"), put("ann", "m2", "bob", "ann#1"), put("ann", "m3", "bob", "ann#1"))
	for i, cid := range []string{"m1", "m2", "m3"} {
		p.arrive("ann", cid, int64(i+1), conns)
	}
	again, reuse := send("ann", "m1", "bob"), send("ann", "m2", "bob")
	again.Again, reuse.Reuse, reuse.Body = true, true, "another body"
	p.add(again, put("ann", "m1", "bob", "ann#1"), wire("ann", "ann#1", "m1", "ann", "bob", 1), ack("ann", "m1", 1),
		reuse, put("ann", "m2", "bob", "ann#1"), history.Record{Kind: history.Never, Dev: "ann", Life: 1, Conn: "ann#1", CID: "m2", Code: 1009},
		history.Record{Kind: history.Refusal, Dev: "ann", Life: 1, CID: "m2", Code: 1009})
	p.add(send("ann", "nobody", "dave"), put("ann", "nobody", "dave", "ann#1"),
		history.Record{Kind: history.Never, Dev: "ann", Life: 1, Conn: "ann#1", CID: "nobody", Code: 1004},
		history.Record{Kind: history.Refusal, Dev: "ann", Life: 1, CID: "nobody", Code: 1004})
	p.add(send("bob", "x", "ann"), put("bob", "x", "ann", "bob#1"), send("ann", "y", "bob"), put("ann", "y", "bob", "ann#1"),
		wire("ann", "ann#1", "y", "ann", "bob", 5)) // before x: they come from two workers
	p.arrive("bob", "x", 4, conns)
	p.arrive("ann", "y", 5, conns)
	p.at(10 * time.Second)
	p.add(history.Record{Kind: history.Poison, CID: "p"})
	p.at(12 * time.Second)
	p.add(history.Record{Kind: history.Dead, CID: "p", Note: "no JSON"})
	p.middle(conns)
	return p.end()
}

func (p *tape) middle(conns map[string]string) {
	p.at(20 * time.Second)
	p.add(history.Record{Kind: history.Fault, Fault: 1, Name: "partition", Note: "store"}, send("ann", "slow", "bob"), put("ann", "slow", "bob", "ann#1"))
	p.at(37 * time.Second)
	p.add(history.Record{Kind: history.Heal, Fault: 1})
	p.arrive("ann", "slow", 6, conns)
	p.at(60 * time.Second)
	p.add(history.Record{Kind: history.Fault, Fault: 2, Name: "kill edge", Note: "e1", Kill: true},
		history.Record{Kind: history.Close, Dev: "ann", Life: 1, Conn: "ann#1", Code: 1006}, history.Record{Kind: history.Heal, Fault: 2})
	p.add(history.Record{Kind: history.Open, Dev: "ann", Life: 1, Conn: "ann#2", Edge: "e2", Resumed: true})
	p.add(history.Record{Kind: history.Close, Dev: "bob", Life: 1, Conn: "bob#1", Code: 1000}, history.Record{Kind: history.End, Dev: "bob", Life: 1})
	p.at(62 * time.Second)
	p.add(history.Record{Kind: history.Begin, User: "bob", Dev: "bob", Life: 2, Cursors: map[string]int64{theConv: 6}},
		history.Record{Kind: history.Open, Dev: "bob", Life: 2, Conn: "bob#2", Edge: "e2", Resumed: true})
	for _, r := range []history.Record{send("bob", "z", "ann"), put("bob", "z", "ann", "bob#2"), wire("bob", "bob#2", "z", "bob", "ann", 7),
		ack("bob", "z", 7), stored(history.Event, "bob", "z", "bob", "ann", 7)} {
		r.Life = 2
		p.add(r)
	}
	p.add(wire("ann", "ann#2", "z", "bob", "ann", 7), stored(history.Event, "ann", "z", "bob", "ann", 7))
}

func (p *tape) end() []history.Record {
	p.add(history.Record{Kind: history.Quiet})
	p.add(history.Record{Kind: history.Lag, Seq: 3})
	p.add(history.Record{Kind: history.Lag})
	p.at(125 * time.Second)
	for user, life := range map[string]int{"ann": 1, "bob": 2, "carol": 1} {
		p.add(history.Record{Kind: history.Outbox, Dev: user, Life: life})
	}
	for _, user := range []string{"ann", "bob"} {
		for i, cid := range []string{"m1", "m2", "m3", "x", "y", "slow", "z"} {
			from, to := "ann", "bob"
			if cid == "x" || cid == "z" {
				from, to = to, from
			}
			r := stored(history.Row, "", cid, from, to, int64(i+1))
			r.Life, r.User = 0, user
			p.add(r)
		}
		p.add(history.Record{Kind: history.Read, User: user, Conv: theConv, Seq: 7})
	}
	p.add(history.Record{Kind: "not known yet"}, history.Record{Kind: history.Done})
	return p.recs
}

// index finds the only record of a kind that matches, or the first.
func index(t *testing.T, recs []history.Record, k history.Kind, like func(*history.Record) bool) int {
	t.Helper()
	for i := range recs {
		if recs[i].Kind == k && like(&recs[i]) {
			return i
		}
	}
	t.Fatalf("the story has no such %s", k)
	return none
}

func cid(id string) func(*history.Record) bool {
	return func(r *history.Record) bool { return r.CID == id }
}

func cidAt(id, dev string) func(*history.Record) bool {
	return func(r *history.Record) bool { return r.CID == id && r.Dev == dev }
}

func dev(name string) func(*history.Record) bool {
	return func(r *history.Record) bool { return r.Dev == name }
}

func any1(*history.Record) bool { return true }

// without drops every record of the kinds that matches.
func without(recs []history.Record, like func(*history.Record) bool, ks ...history.Kind) []history.Record {
	return slices.DeleteFunc(recs, func(r history.Record) bool { return slices.Contains(ks, r.Kind) && like(&r) })
}

// move puts record i to where record j is, and gives it its time.
func move(recs []history.Record, i, j int) []history.Record {
	r := recs[i]
	r.T = recs[j].T
	recs = slices.Delete(recs, i, i+1)
	if i < j {
		j--
	}
	return slices.Insert(recs, j, r)
}

// check checks records as a history.
func check(t testing.TB, recs []history.Record) *Report {
	t.Helper()
	rep, err := Check(bytes.NewReader(encode(t, recs)), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return rep
}
