package check

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

func encode(t testing.TB, recs []history.Record) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range recs {
		if err := enc.Encode(&recs[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestACleanStoryPasses(t *testing.T) {
	rep := check(t, story())
	if !rep.OK() {
		t.Fatalf("a clean history breaks rules:\n%s", rep)
	}
	s := rep.Stats.Sends
	if want := (Sends{Attempted: 8, Again: 1, Reused: 1, Acked: 7, Stored: 7, Refused: 1}); s != want {
		t.Errorf("counted %+v, want %+v", s, want)
	}
}

// change is a change of the story that breaks rules.
type change struct {
	name string
	want []Rule
	do   func(t *testing.T, recs []history.Record) []history.Record
}

func edit(k history.Kind, like func(*history.Record) bool, do func(*history.Record)) func(*testing.T, []history.Record) []history.Record {
	return func(t *testing.T, recs []history.Record) []history.Record {
		do(&recs[index(t, recs, k, like)])
		return recs
	}
}

func drop(k history.Kind, like func(*history.Record) bool) func(*testing.T, []history.Record) []history.Record {
	return func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, k, like)
		return slices.Delete(recs, i, i+1)
	}
}

// insert puts records before the first one of a kind.
func insert(before history.Kind, like func(*history.Record) bool, add ...history.Record) func(*testing.T, []history.Record) []history.Record {
	return func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, before, like)
		for k := range add {
			add[k].T = recs[i].T
		}
		return slices.Insert(recs, i, add...)
	}
}

var rowChanges = []change{
	{"an acknowledged message is missing", []Rule{Lost}, insert(history.Quiet, any1, send("ann", "gone", "bob"), ack("ann", "gone", 8))},
	{"an own message came on the wire and is missing", []Rule{Lost, Unresolved},
		insert(history.Quiet, any1, send("ann", "gone", "bob"), wire("ann", "ann#2", "gone", "ann", "bob", 8))},
	{"a message is gone from history", []Rule{Lost, Gap, Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		return without(recs, cid("y"), history.Row)
	}},
	{"a row was never sent", []Rule{Foreign}, drop(history.Send, cid("y"))},
	{"another body came on the wire", []Rule{Foreign}, edit(history.Wire, cidAt("y", "bob"), func(r *history.Record) { r.Body = "?" })},
	{"a reader sees another body", []Rule{Foreign}, edit(history.Row, func(r *history.Record) bool { return r.CID == "y" && r.User == "bob" },
		func(r *history.Record) { r.Body = "?" })},
	{"a row without a sender", []Rule{Foreign, Duplicated}, edit(history.Row, func(r *history.Record) bool { return r.CID == "y" && r.User == "bob" },
		func(r *history.Record) { r.From = "" })},
	{"an acknowledgement names another seq", []Rule{Duplicated}, edit(history.Ack, cid("y"), func(r *history.Record) { r.Seq = 4 })},
	{"a repetition is acknowledged with another seq", []Rule{Duplicated}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Send, func(r *history.Record) bool { return r.Again })
		recs[i+index(t, recs[i:], history.Ack, cid("m1"))].Seq = 9
		return recs
	}},
	{"a reader reads a row twice", []Rule{Duplicated, Gap}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Row, cid("y"))
		return slices.Insert(recs, i, recs[i])
	}},
	{"two readers see another message at one place", []Rule{Duplicated, RealTime, Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Row, cid("y"))
		j := index(t, recs, history.Row, func(r *history.Record) bool { return r.CID == "m3" && r.User == "bob" })
		recs[i].CID, recs[i].Body, recs[j].CID, recs[j].Body = "m3", "body of m3", "y", "body of y"
		return recs
	}},
	{"a reading tells another number", []Rule{Gap}, edit(history.Read, any1, func(r *history.Record) { r.Seq = 6 })},
	{"no reader has a row", []Rule{Lost, Gap, Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		recs = without(recs, cid("y"), history.Row)
		for i := range recs {
			if recs[i].Kind == history.Read {
				recs[i].Seq = 6
			}
		}
		return recs
	}},
	{"a conversation is not in final history", []Rule{Lost, Gap, Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		return without(recs, any1, history.Row, history.Read)
	}},
	{"a reader did not come to the end", []Rule{Gap}, drop(history.Read, any1)},
	{"nobody read", []Rule{Gap}, func(t *testing.T, recs []history.Record) []history.Record {
		return without(recs, any1, history.Read)
	}},
	{"a reader misses a row", []Rule{Gap}, func(t *testing.T, recs []history.Record) []history.Record {
		recs = drop(history.Row, cid("y"))(t, recs)
		recs[index(t, recs, history.Read, any1)].Seq = 6
		return recs
	}},
	{"a third person is handed a message", []Rule{Rights}, insert(history.Quiet, any1, wire("carol", "carol#1", "m1", "ann", "bob", 1))},
	{"a third person reads", []Rule{Rights, Gap}, func(t *testing.T, recs []history.Record) []history.Record {
		r := stored(history.Row, "", "m1", "ann", "bob", 1)
		r.Life, r.User = 0, "carol"
		return insert(history.Done, any1, r, history.Record{Kind: history.Read, User: "carol", Conv: theConv, Seq: 1})(t, recs)
	}},
}

var orderChanges = []change{
	{"what was sent after an acknowledgement stands before", []Rule{RealTime}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Send, cid("x")), index(t, recs, history.Wire, cidAt("x", "bob")))
	}},
	{"a device sent in another order", []Rule{SenderOrder}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Send, cid("m3")), index(t, recs, history.Send, cid("m2")))
	}},
	{"a connection carried in another order", []Rule{SenderOrder}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Put, cid("m3")), index(t, recs, history.Put, cid("m2")))
	}},
}

var channelChanges = []change{
	{"the last event is missing", []Rule{Channel}, drop(history.Event, cidAt("z", "ann"))},
	{"the last event is missing and the device ended after that", []Rule{Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		recs = insert(history.Row, any1, history.Record{Kind: history.End, Dev: "ann", Life: 1, Code: 1})(t, recs)
		return drop(history.Event, cidAt("z", "ann"))(t, recs)
	}},
	{"an event is missing", []Rule{Channel}, drop(history.Event, cidAt("x", "ann"))},
	{"an event comes twice", []Rule{Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Event, cidAt("x", "ann"))
		return slices.Insert(recs, i, recs[i])
	}},
	{"an event has another body", []Rule{Channel}, edit(history.Event, cidAt("x", "ann"), func(r *history.Record) { r.Body = "?" })},
	{"a fresh device begins behind what was sent after it was synced", []Rule{Channel}, drop(history.Event, cidAt("m1", "bob"))},
	{"a fresh device shows nothing", []Rule{Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		return without(recs, dev("ann"), history.Event)
	}},
	{"a life begins ahead of what was shown", []Rule{Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		return without(recs, cidAt("slow", "bob"), history.Event)
	}},
	{"a life begins behind what was shown", []Rule{Channel}, again5},
	{"history is said to be gone", []Rule{SkippedRows},
		insert(history.Quiet, any1, history.Record{Kind: history.Skipped, Dev: "ann", Life: 1, Conv: theConv, Seq: 6, Upto: 7})},
}

var sendChanges = []change{
	{"a stored message was refused", []Rule{Refused},
		insert(history.Quiet, any1, history.Record{Kind: history.Never, Dev: "ann", Life: 1, Conn: "ann#2", CID: "y", Code: 1001})},
	{"a message was refused to the program and is stored", []Rule{Refused},
		insert(history.Quiet, any1, history.Record{Kind: history.Refusal, Dev: "ann", Life: 1, CID: "y", Code: 1001})},
	{"a second body is not refused", []Rule{Reuse}, drop(history.Refusal, cid("m2"))},
	{"a second body is acknowledged", []Rule{Reuse}, edit(history.Refusal, cid("m2"), func(r *history.Record) { *r = withTime(ack("ann", "m2", 2), r.T) })},
	{"a second body is stored", []Rule{Reuse, Channel}, func(t *testing.T, recs []history.Record) []history.Record {
		for i := range recs {
			if recs[i].Kind == history.Row && recs[i].CID == "m2" {
				recs[i].Body = "another body"
			}
		}
		return recs
	}},
	{"a send is not acknowledged", []Rule{Unresolved}, drop(history.Ack, cid("y"))},
	{"a repetition is not acknowledged", []Rule{Unresolved}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Send, func(r *history.Record) bool { return r.Again })
		j := i + index(t, recs[i:], history.Ack, cid("m1"))
		return slices.Delete(recs, j, j+1)
	}},
	{"a send is acknowledged too late", []Rule{Unresolved}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Ack, cid("z")), index(t, recs, history.Done, any1))
	}},
	{"an outbox is not empty", []Rule{Unresolved}, edit(history.Outbox, any1, func(r *history.Record) { r.Seq = 1 })},
	{"a put has no answer", []Rule{Resolve}, drop(history.Never, cid("nobody"))},
	{"a put has its answer too late", []Rule{Resolve}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Never, cid("nobody")), index(t, recs, history.Heal, any1))
	}},
	{"a message does not come on the wire", []Rule{Hole}, drop(history.Wire, cidAt("m2", "bob"))},
	{"a message does not come on the wire after a resume", []Rule{Hole}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Wire, cidAt("slow", "bob"))
		return slices.Delete(recs, i, i+1)
	}},
}

func withTime(r history.Record, t int64) history.Record {
	r.T = t
	return r
}

var runChanges = []change{
	{"a poison is not found", []Rule{Poisoned}, drop(history.Dead, any1)},
	{"a poison is found too late", []Rule{Poisoned}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Poison, any1)
		recs[i].T -= int64(9 * time.Second)
		return recs
	}},
	{"all data went long after a poison was due", []Rule{Poisoned}, both(drop(history.Dead, any1), insert(history.Done, any1, history.Record{Kind: history.Wiped}))},
	{"a member does not find a conversation", []Rule{Gap}, func(t *testing.T, recs []history.Record) []history.Record {
		bobs := func(r *history.Record) bool { return r.User == "bob" }
		return without(without(recs, bobs, history.Row), bobs, history.Read)
	}},
	{"a send is dead", []Rule{DeadSend}, insert(history.Quiet, any1, history.Record{Kind: history.Dead, CID: "m1"})},
	{"the uplink is not empty", []Rule{Drained}, edit(history.Lag, func(r *history.Record) bool { return r.Seq == 0 }, func(r *history.Record) { r.Seq = 2 })},
	{"the uplink is empty too late", []Rule{Drained}, func(t *testing.T, recs []history.Record) []history.Record {
		return move(recs, index(t, recs, history.Lag, func(r *history.Record) bool { return r.Seq == 0 }), index(t, recs, history.Done, any1))
	}},
	{"nobody looked at the uplink", []Rule{Drained}, func(t *testing.T, recs []history.Record) []history.Record { return without(recs, any1, history.Lag) }},
	{"the run was never quiet", []Rule{Drained}, drop(history.Quiet, any1)},
	{"service does not come back", []Rule{Service}, edit(history.Fault, any1, func(r *history.Record) { r.Kill = true })},
	{"service does not come back after the heal", []Rule{Service}, func(t *testing.T, recs []history.Record) []history.Record {
		i := index(t, recs, history.Heal, any1)
		recs = move(recs, i, index(t, recs, history.Send, cid("slow")))
		return recs
	}},
	{"a fault is not healed", []Rule{Malformed}, drop(history.Heal, any1)},
	{"a device never began", []Rule{Malformed}, drop(history.Begin, dev("carol"))},
	{"the run broke off", []Rule{Torn}, drop(history.Done, any1)},
}

func TestEachRuleIsNamedWhenItIsBroken(t *testing.T) {
	tested := map[Rule]bool{}
	for _, c := range slices.Concat(rowChanges, orderChanges, channelChanges, sendChanges, runChanges) {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			rep := check(t, c.do(t, story()))
			got := slices.Sorted(maps.Keys(rep.Counts))
			if want := slices.Sorted(slices.Values(c.want)); !slices.Equal(got, want) {
				t.Fatalf("broken rules are %q, want %q\n%s", got, want, rep)
			}
			for _, v := range rep.Violations {
				if v.Rule == c.want[0] && v.What == "" {
					t.Errorf("%s says nothing", v.Rule)
				}
			}
		})
		if len(c.want) == 1 {
			tested[c.want[0]] = true
		}
	}
	for _, r := range Rules {
		if !tested[r] {
			t.Errorf("no change breaks %q alone", r)
		}
	}
}
