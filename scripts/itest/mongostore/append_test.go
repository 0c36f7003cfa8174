package mongostore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/mongostore"
)

// [r] A batch with a redelivered message and new ones makes neither a hole nor another
// order, by rounds and by ordered inserts.
func TestRedeliveredAndNewInOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		for _, n := range []int{2, 4, 30, 250} {
			conv := "k" + strconv.Itoa(n)
			from := "u" + strconv.Itoa(n)
			appendAll(t, open(t, uri), msg(conv, from, "c1"), msg(conv, from, "c2"))
			batch := []messaging.NewMessage{msg(conv, from, "c2")}
			for _, cid := range numbered("c", 3, n) {
				batch = append(batch, msg(conv, from, cid))
			}
			s := open(t, uri)
			for i, r := range appendAll(t, s, batch...) {
				want := messaging.Appended{Outcome: messaging.Stored, Seq: int64(i + 2), TS: batch[i].TS}
				if i == 0 {
					want.Outcome, want.TS = messaging.Known, r.TS
				}
				if r != want {
					t.Fatalf("message %d is %+v, want %+v", i, r, want)
				}
			}
			wantCIDs(t, whole(t, s, conv), numbered("c", 1, max(2, n))...)
		}
	})
}

// [r] Eight processes write the same conversations; each sender's lane is worked by two
// of them at once, from its start, in different batches. Nothing is lost, doubled, out
// of order, or numbered with a gap.
func TestEightProcessesOnTheSameConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		const senders, each, convs = 4, 80, 3
		var wg sync.WaitGroup
		for sender := range senders {
			var lane []messaging.NewMessage
			where := rand.New(rand.NewPCG(1, uint64(sender)))
			for i := range each {
				lane = append(lane, msg("k"+strconv.Itoa(where.IntN(convs)), "u"+strconv.Itoa(sender), strconv.Itoa(i)))
			}
			for owner := range uint64(2) {
				s := open(t, uri)
				cuts := rand.New(rand.NewPCG(2+owner, uint64(sender)))
				wg.Go(func() {
					for rest := lane; len(rest) > 0; {
						n := min(1+cuts.IntN(40), len(rest))
						if _, err := s.Append(t.Context(), rest[:n]); err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
					}
				})
			}
		}
		wg.Wait()
		s, total := open(t, uri), 0
		for c := range convs {
			latest := map[string]int{}
			for _, m := range whole(t, s, "k"+strconv.Itoa(c)) {
				i, err := strconv.Atoi(m.CID)
				if last, ok := latest[m.From.Raw()]; err != nil || ok && i <= last {
					t.Errorf("message %s of %s stands behind %d", m.CID, m.From, last)
				}
				latest[m.From.Raw()] = i
				total++
			}
		}
		if total != senders*each {
			t.Errorf("%d messages are stored, want %d", total, senders*each)
		}
	})
}

func TestKnownAndReusedAcrossBatches(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		first := msg("k", "u", "c1")
		stored := appendAll(t, s, first)[0]
		later := first
		later.TS += 5000
		for _, s := range []string{"same process", "another"} {
			store := open(t, uri)
			if got := appendAll(t, store, later)[0]; got.Outcome != messaging.Known || got.Seq != 1 || got.TS != stored.TS {
				t.Errorf("%s: again it is %+v, first it was %+v", s, got, stored)
			}
		}
		body, kind, conv, foreign := first, first, msg("other", "u", "c1"), msg("k", "v", "c1")
		body.Body = []byte(`"another"`)
		kind.Type = 1002
		for i, r := range appendAll(t, s, body, kind, conv, foreign) {
			if want := map[bool]messaging.Outcome{false: messaging.Reused, true: messaging.Stored}[i == 3]; r.Outcome != want {
				t.Errorf("message %d is %+v", i, r)
			}
		}
		wantCIDs(t, whole(t, s, "k"), "c1", "c1")
		wantCIDs(t, whole(t, s, "other"))
		if n := count(t, database(t, uri), "messages"); n != 2 {
			t.Errorf("%d documents, want 2", n)
		}
	})
}

// A message far back is found too, and so is one in another conversation.
func TestKnownFarBack(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		var batch []messaging.NewMessage
		for i := range 1200 {
			batch = append(batch, msg("k", "u", strconv.Itoa(i)))
		}
		appendAll(t, s, batch...)
		got := appendAll(t, open(t, uri), batch[3], msg("k", "u", "new"))
		if got[0].Outcome != messaging.Known || got[0].Seq != 4 || got[1].Seq != 1201 {
			t.Errorf("got %+v", got)
		}
	})
}

// Ids and bodies come back byte for byte, whatever they hold.
func TestHostileIdsAndBodies(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		bodies := []string{`[[1,[2]],[]]`, `{"$set":{"a.b":1},"":0,"x":{"$gt":""}}`, "\"\x00\"", "{\"a\x00b\":1}", `"😀é\u0000"`, "\xff\xfe", `""`, " ", `0`}
		users := []string{"*", ">", "a.b", "a/b", " ", "=2F", "$where", "a\x00b", "😀", strings.Repeat("ä", 64)}
		for _, u := range users {
			token := msg("k", u, "c").From.Token()
			conv := "d:" + token + ":" + token
			var batch []messaging.NewMessage
			for i, b := range bodies {
				m := msg(conv, u, "$c."+strconv.Itoa(i))
				m.Body = []byte(b)
				batch = append(batch, m)
			}
			appendAll(t, s, batch...)
			for i, m := range whole(t, s, conv) {
				if !bytes.Equal(m.Body, []byte(bodies[i])) || m.From.Raw() != u || m.CID != batch[i].CID || m.Type != 1001 || m.TS != batch[i].TS {
					t.Errorf("user %q: %+v came back as %+v", u, batch[i], m)
				}
			}
			ids, err := s.ConversationIDs(t.Context(), batch[0].From)
			if err != nil || len(ids) != 1 || ids[0] != conv {
				t.Errorf("conversations of %q are %v, %v", u, ids, err)
			}
		}
	})
}

// A conversation whose id begins like another's keeps to itself.
func TestNeighbouringConversations(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		convs := []string{"d:a:b", "d:a:b-", "d:a:b0", "d:a:=62", "d:a:b=", "d:a"}
		for i, conv := range convs {
			for n := range i + 1 {
				appendAll(t, s, msg(conv, "u", fmt.Sprint(conv, n)))
			}
		}
		s = open(t, uri)
		for i, conv := range convs {
			if got := whole(t, s, conv); len(got) != i+1 {
				t.Errorf("%s has %d messages, want %d", conv, len(got), i+1)
			}
			if r := appendAll(t, s, msg(conv, "u", "next in "+conv))[0]; r.Seq != int64(i+2) {
				t.Errorf("%s goes on with %d, want %d", conv, r.Seq, i+2)
			}
		}
	})
}

func TestLargeBodies(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		large, tooLarge := msg("k", "u", "large"), msg("k", "u", "too large")
		large.Body = bytes.Repeat([]byte{'x'}, 1<<20)
		tooLarge.Body = bytes.Repeat([]byte{'x'}, 16<<20)
		res := appendAll(t, s, msg("k", "u", "a"), tooLarge, large, msg("k", "u", "b"))
		if res[1].Outcome != messaging.Refused || res[1].Reason == "" {
			t.Errorf("a body of 16 MiB is %+v", res[1])
		}
		wantCIDs(t, whole(t, s, "k"), "a", "large", "b")
		if s.Kind() == mongostore.FerretDB {
			return
		}
		var many []messaging.NewMessage // more than one insert command holds
		for i := range 60 {
			m := msg("m"+strconv.Itoa(i%7), "u", strconv.Itoa(i))
			m.Body = large.Body
			many = append(many, m)
		}
		for i, r := range appendAll(t, s, many...) {
			if r.Outcome != messaging.Stored || r.Seq != int64(i/7+1) {
				t.Errorf("large message %d is %+v", i, r)
			}
		}
	})
}

// Two lanes of one process write to the same conversations, each in its order.
func TestLanesOfOneProcess(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		var wg sync.WaitGroup
		for lane := range 4 {
			wg.Go(func() {
				for i := range 20 {
					var batch []messaging.NewMessage
					for c := range 10 {
						batch = append(batch, msg("k"+strconv.Itoa(c), "u"+strconv.Itoa(lane), fmt.Sprintf("%d/%d", i, c)))
					}
					if _, err := s.Append(t.Context(), batch); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for c := range 10 {
			if got := whole(t, s, "k"+strconv.Itoa(c)); len(got) != 80 {
				t.Errorf("conversation %d has %d messages, want 80", c, len(got))
			}
		}
	})
}
