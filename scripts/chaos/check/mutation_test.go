package check

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// mutation is a way in which a system may break a promise. do changes a good history at
// a random place; nil: it has no such place.
type mutation struct {
	name string
	want Rule
	do   func(rnd *rand.Rand, recs []history.Record) []history.Record
}

// pick returns the index of a record of a kind that matches, the first one from a random
// place on, none if there is none.
func pick(rnd *rand.Rand, recs []history.Record, k history.Kind, like func(int) bool) int {
	first := rnd.IntN(len(recs))
	for n := range recs {
		if i := (first + n) % len(recs); recs[i].Kind == k && like(i) {
			return i
		}
	}
	return none
}

func every(int) bool { return true }

// same reports whether two records are about the same place of a conversation.
func same(a, b *history.Record) bool { return a.Conv == b.Conv && a.Seq == b.Seq }

// atOne applies a change at a random record of a kind.
func atOne(k history.Kind, do func(recs []history.Record, i int) []history.Record) func(*rand.Rand, []history.Record) []history.Record {
	return func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, k, every)
		if i == none {
			return nil
		}
		return do(recs, i)
	}
}

var mutations = []mutation{
	{"a row is gone", Lost, atOne(history.Row, func(recs []history.Record, i int) []history.Record {
		row := recs[i]
		return without(recs, func(r *history.Record) bool { return same(r, &row) }, history.Row)
	})},
	{"a row is gone", Gap, atOne(history.Row, func(recs []history.Record, i int) []history.Record { return slices.Delete(recs, i, i+1) })},
	{"two rows change places", Duplicated, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Row, func(i int) bool { return recs[i].Seq > 1 })
		row := recs[i]
		for k := range recs {
			switch r := &recs[k]; {
			case r.Kind != history.Row || r.Conv != row.Conv:
			case r.Seq == row.Seq:
				r.Seq--
			case r.Seq == row.Seq-1:
				r.Seq++
			}
		}
		return recs
	}},
	{"a message is stored twice", Duplicated, atOne(history.Row, func(recs []history.Record, i int) []history.Record {
		twin := recs[i]
		out := make([]history.Record, 0, len(recs)+2)
		for _, r := range recs {
			if r.Kind == history.Read && r.Conv == twin.Conv {
				r.Seq++
				twin.Seq, twin.User, twin.T = r.Seq, r.User, r.T
				out = append(out, twin)
			}
			out = append(out, r)
		}
		return out
	})},
	{"a row has another body", Foreign, atOne(history.Row, func(recs []history.Record, i int) []history.Record {
		row := recs[i]
		for k := range recs {
			if recs[k].Kind == history.Row && same(&recs[k], &row) {
				recs[k].Body = "changed"
			}
		}
		return recs
	})},
	{"a row is for somebody else", Foreign, atOne(history.Row, func(recs []history.Record, i int) []history.Record {
		recs[i].To = recs[i].From
		return recs
	})},
	{"an acknowledgement names another place", Duplicated, atOne(history.Ack, func(recs []history.Record, i int) []history.Record {
		recs[i].Seq++
		return recs
	})},
	{"an event is missing", Channel, atOne(history.Event, func(recs []history.Record, i int) []history.Record {
		e := recs[i]
		return without(recs, func(r *history.Record) bool { return r.Dev == e.Dev && same(r, &e) }, history.Event)
	})},
	{"the last event of a device is missing", Channel, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Outbox, every)
		for k := i; k >= 0; k-- {
			if recs[k].Kind == history.Event && recs[k].Dev == recs[i].Dev && recs[k].Life == recs[i].Life {
				return slices.Delete(recs, k, k+1)
			}
		}
		return nil
	}},
	{"an event comes twice", Channel, atOne(history.Event, func(recs []history.Record, i int) []history.Record { return slices.Insert(recs, i, recs[i]) })},
	{"two events change places", Channel, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Event, every)
		for k := i + 1; k < len(recs); k++ {
			if r := &recs[k]; r.Kind == history.Event && r.Dev == recs[i].Dev && r.Life == recs[i].Life && r.Conv == recs[i].Conv {
				a, b := recs[i], recs[k]
				a.T, b.T = b.T, a.T
				recs[i], recs[k] = b, a
				return recs
			}
		}
		return nil
	}},
	{"a life begins too far", Channel, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Begin, func(i int) bool { return len(recs[i].Cursors) > 0 })
		if i == none {
			return nil
		}
		for conv := range recs[i].Cursors {
			recs[i].Cursors[conv] += 1000
		}
		return recs
	}},
	{"sends of a device change places", SenderOrder, swapSends},
	{"a message is overtaken by a later one", RealTime, overtake},
	{"a send has no acknowledgement", Unresolved, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Ack, func(i int) bool { return !cutOff(recs, recs[i].CID) })
		if i == none {
			return nil
		}
		id := recs[i].CID
		return without(recs, cid(id), history.Ack)
	}},
	{"a stored message is refused", Refused, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Ack, func(i int) bool {
			return !slices.ContainsFunc(recs[:i], func(r history.Record) bool { return r.Reuse && r.CID == recs[i].CID })
		})
		no := recs[i]
		no.Kind, no.Conv, no.Seq, no.Code = history.Refusal, "", 0, 1001
		return slices.Insert(recs, i+1, no)
	}},
	{"a second body is acknowledged", Reuse, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Send, func(i int) bool { return recs[i].Reuse })
		if i == none {
			return nil
		}
		for k := i; k < len(recs); k++ {
			if recs[k].Kind == history.Refusal && recs[k].CID == recs[i].CID {
				recs[k].Kind = history.Ack
				return recs
			}
		}
		return nil
	}},
	{"a third person is handed a message", Rights, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Wire, every)
		r := recs[i]
		open := pick(rnd, recs[:i], history.Open, func(k int) bool {
			owner := recs[indexOf(recs, history.Begin, dev(recs[k].Dev))].User
			return owner != r.From && owner != r.To
		})
		if open == none {
			return nil
		}
		r.Dev, r.Life, r.Conn = recs[open].Dev, recs[open].Life, recs[open].Conn
		return slices.Insert(recs, i, r)
	}},
	{"a frame is missing on a connection that lasts", Hole, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs[:len(recs)/2], history.Wire, func(i int) bool {
			w := &recs[i]
			if w.Dev != "u0|phone" || slices.ContainsFunc(recs, func(r history.Record) bool { return r.Again && r.CID == w.CID }) {
				return false // it may come once more
			}
			return slices.ContainsFunc(recs[i:len(recs)*3/4], func(r history.Record) bool {
				return r.Kind == history.Wire && r.Dev == w.Dev && r.Conv == w.Conv && r.Seq > w.Seq
			})
		})
		if i == none {
			return nil
		}
		w := recs[i]
		return without(recs, func(r *history.Record) bool { return r.Dev == w.Dev && same(r, &w) }, history.Wire)
	}},
	{"a poison is not found", Poisoned, atOne(history.Dead, func(recs []history.Record, i int) []history.Record { return slices.Delete(recs, i, i+1) })},
	{"a send is found dead", DeadSend, func(rnd *rand.Rand, recs []history.Record) []history.Record {
		i := pick(rnd, recs, history.Dead, every)
		k := pick(rnd, recs, history.Send, every)
		recs[i].CID = recs[k].CID
		return recs
	}},
}

func indexOf(recs []history.Record, k history.Kind, like func(*history.Record) bool) int {
	return slices.IndexFunc(recs, func(r history.Record) bool { return r.Kind == k && like(&r) })
}

// cutOff reports whether a life that sent a message ended without a word.
func cutOff(recs []history.Record, id string) bool {
	return slices.ContainsFunc(recs, func(s history.Record) bool {
		return s.Kind == history.Send && s.CID == id && slices.ContainsFunc(recs, func(r history.Record) bool {
			return r.Kind == history.End && r.Code == 1 && r.Dev == s.Dev && r.Life == s.Life
		})
	})
}

// placesOf returns the row of each message.
func placesOf(recs []history.Record) map[string]history.Record {
	rows := map[string]history.Record{}
	for _, r := range recs {
		if r.Kind == history.Row {
			rows[r.CID] = r
		}
	}
	return rows
}

// swapSends exchanges two sends of one life to one conversation.
func swapSends(rnd *rand.Rand, recs []history.Record) []history.Record {
	rows := placesOf(recs)
	plain := func(r *history.Record) bool {
		return r.Kind == history.Send && !r.Again && !r.Reuse && rows[r.CID].Seq > 0
	}
	next := func(i int) int {
		for k := i + 1; k < len(recs); k++ {
			if r := &recs[k]; plain(r) && r.Dev == recs[i].Dev && r.Life == recs[i].Life && rows[r.CID].Conv == rows[recs[i].CID].Conv {
				return k
			}
		}
		return none
	}
	i := pick(rnd, recs, history.Send, func(i int) bool { return plain(&recs[i]) && next(i) != none })
	if i == none {
		return nil
	}
	k := next(i)
	a, b := recs[i], recs[k]
	a.T, b.T = b.T, a.T
	recs[i], recs[k] = b, a
	return recs
}

// overtake lets a send begin only when the message behind it is known to be stored.
func overtake(rnd *rand.Rand, recs []history.Record) []history.Record {
	rows := placesOf(recs)
	byPlace := map[view]string{}
	convs := map[string]int32{}
	for _, r := range rows {
		if _, ok := convs[r.Conv]; !ok {
			convs[r.Conv] = int32(len(convs))
		}
		byPlace[view{convs[r.Conv], int32(r.Seq)}] = r.CID
	}
	i := pick(rnd, recs, history.Send, func(i int) bool {
		row := rows[recs[i].CID]
		return !recs[i].Again && !recs[i].Reuse && row.Seq > 0 && byPlace[view{convs[row.Conv], int32(row.Seq + 1)}] != ""
	})
	if i == none {
		return nil
	}
	row := rows[recs[i].CID]
	next := byPlace[view{convs[row.Conv], int32(row.Seq + 1)}]
	seen := indexOf(recs, history.Event, cid(next))
	if seen < i {
		return nil
	}
	return move(recs, i, seen+1)
}

// Every mutation is found, whatever the history and the place.
func TestEveryMutationIsFound(t *testing.T) {
	const seeds = 12
	limits := DefaultLimits()
	limits.WireHole = time.Second
	applied := make([]int, len(mutations))
	for seed := range uint64(seeds) {
		clean := newSystem(100+seed, 5).run(700)
		if m := judged(clean, limits); len(m.report.found) > 0 {
			t.Fatalf("seed %d: the history is not clean: %+v", seed, m.report.found[0])
		}
		for i, mut := range mutations {
			recs := slices.Clone(clean)
			for k := range recs {
				recs[k].Cursors = maps.Clone(recs[k].Cursors)
			}
			if recs = mut.do(rand.New(rand.NewPCG(seed, uint64(i))), recs); recs == nil {
				continue
			}
			applied[i]++
			if m := judged(recs, limits); len(m.report.times[mut.want]) == 0 {
				t.Errorf("seed %d: %s: %q is not broken; broken are %v", seed, mut.name, mut.want, m.report.times)
			}
		}
	}
	for i, n := range applied {
		if n < seeds/2 {
			t.Errorf("%q was tried %d times only", mutations[i].name, n)
		}
	}
}
