package mongostore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wirepost/wirepost/worker/messaging"
)

var errAway = errors.New("the store is away")

func cids(msgs []messaging.NewMessage) string {
	var b []string
	for _, m := range msgs {
		b = append(b, m.CID)
	}
	return strings.Join(b, " ")
}

func mustAppend(t *testing.T, a *appender, msgs ...messaging.NewMessage) []messaging.Appended {
	t.Helper()
	res, err := a.append(t.Context(), msgs)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func wantHistory(t *testing.T, f *fakeStore, conv, want string) {
	t.Helper()
	msgs, gapless := f.history(conv)
	if got := cids(msgs); got != want || !gapless {
		t.Errorf("history of %s is %q, gapless %v; want %q", conv, got, gapless, want)
	}
}

// [r] A batch that holds a redelivered message and new ones of the same conversation
// makes neither a hole nor another order, with few messages and with many.
func TestRedeliveredAndNewInOneBatch(t *testing.T) {
	for _, n := range []int{2, layered, layered + 1, 150} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			f := newFake()
			a := appenderOn(f, "k")
			mustAppend(t, a, msg("k", "u", "c1"), msg("k", "u", "c2"))
			batch := []messaging.NewMessage{msg("k", "u", "c2")}
			want := "c1 c2"
			for i := range n {
				cid := "c" + strconv.Itoa(i+3)
				batch = append(batch, msg("k", "u", cid))
				want += " " + cid
			}
			res := mustAppend(t, a, batch...)
			wantHistory(t, f, "k", want)
			if res[0].Outcome != messaging.Known || res[0].Seq != 2 {
				t.Errorf("the redelivered message is %+v", res[0])
			}
			for i, r := range res[1:] {
				if r.Outcome != messaging.Stored || r.Seq != int64(i+3) {
					t.Errorf("new message %d is %+v", i, r)
				}
			}
		})
	}
}

// [r] An error of which it is unknown what was stored drops the conversation from the
// cache; the next attempt reads what a majority has.
func TestErrorDropsTheCache(t *testing.T) {
	f := newFake()
	a := appenderOn(f, "k")
	mustAppend(t, a, msg("k", "u", "c1"))
	if last, ok := a.cache.last("k"); !ok || last != 1 {
		t.Fatalf("cached last is %d, %v after an acknowledged insert", last, ok)
	}
	f.after = func([]*entry) error { return errAway }
	if _, err := a.append(t.Context(), []messaging.NewMessage{msg("k", "u", "c2"), msg("k", "u", "c3")}); !errors.Is(err, errAway) {
		t.Fatalf("error is %v", err)
	}
	if _, ok := a.cache.last("k"); ok || a.cache.known("k") {
		t.Error("the conversation is still in the cache")
	}
	f.after = nil
	a.cache.setKnown("k")
	mustAppend(t, a, msg("k", "u", "c2"), msg("k", "u", "c3"))
	wantHistory(t, f, "k", "c1 c2 c3")
}

func TestNumberTakenByAnother(t *testing.T) {
	f := newFake()
	a := appenderOn(f, "k")
	mustAppend(t, a, msg("k", "u", "c1"))
	for seq := int64(2); seq <= 40; seq++ {
		f.put(msg("k", "v", "v"+strconv.Itoa(int(seq))), seq)
	}
	f.reads = 0
	res := mustAppend(t, a, msg("k", "u", "c2"), msg("k", "u", "c3"))
	if res[0].Seq != 41 || res[1].Seq != 42 {
		t.Errorf("numbers are %d, %d; want 41, 42", res[0].Seq, res[1].Seq)
	}
	if f.reads != 1 {
		t.Errorf("the last number was read %d times, want once, after two refused", f.reads)
	}
}

func TestReuseIsRefused(t *testing.T) {
	f := newFake()
	a := appenderOn(f, "k", "other")
	mustAppend(t, a, msg("k", "u", "c1"))
	body, kind, conv := msg("k", "u", "c1"), msg("k", "u", "c1"), msg("other", "u", "c1")
	body.Body = []byte(`"another"`)
	kind.Type = 1002
	foreign := msg("k", "v", "c1") // another sender's key space
	for i, r := range mustAppend(t, a, body, kind, conv, foreign) {
		want := messaging.Reused
		if i == 3 {
			want = messaging.Stored
		}
		if r.Outcome != want {
			t.Errorf("message %d is %+v", i, r)
		}
	}
	wantHistory(t, f, "k", "c1 c1")
	wantHistory(t, f, "other", "")
}

// The same message several times in one call, alike and not, in one conversation and two.
func TestRepeatsWithinOneCall(t *testing.T) {
	f := newFake()
	a := appenderOn(f, "k", "other")
	first, again, changed := msg("k", "u", "c1"), msg("k", "u", "c1"), msg("k", "u", "c1")
	changed.Body = []byte(`"another"`)
	res := mustAppend(t, a, first, again, changed, msg("other", "u", "c1"), again, msg("k", "u", "c2"))
	want := []messaging.Outcome{messaging.Stored, messaging.Known, messaging.Reused, messaging.Reused, messaging.Known, messaging.Stored}
	for i, r := range res {
		if r.Outcome != want[i] {
			t.Errorf("message %d is %+v, want outcome %d", i, r, want[i])
		}
	}
	wantHistory(t, f, "k", "c1 c2")
	// When the first of two was refused for ever, the second is judged for itself.
	bad, good := msg("k", "u", "c3"), msg("k", "u", "c3")
	bad.Body = []byte("poison")
	res = mustAppend(t, a, bad, good, bad)
	if res[0].Outcome != messaging.Refused || res[1].Outcome != messaging.Stored || res[2].Outcome != messaging.Reused {
		t.Errorf("outcomes %+v", res)
	}
}

func TestRefusedMessageLeavesNoHole(t *testing.T) {
	for _, n := range []int{3, 30} {
		f := newFake()
		a := appenderOn(f, "k")
		var batch []messaging.NewMessage
		var want []string
		for i := range n {
			m := msg("k", "u", "c"+strconv.Itoa(i))
			if i%3 == 1 {
				m.Body = []byte("poison")
			} else {
				want = append(want, m.CID)
			}
			batch = append(batch, m)
		}
		for i, r := range mustAppend(t, a, batch...) {
			if bad := r.Outcome == messaging.Refused; bad != (i%3 == 1) {
				t.Errorf("message %d is %+v", i, r)
			}
		}
		wantHistory(t, f, "k", strings.Join(want, " "))
	}
}

func TestUnfitMessages(t *testing.T) {
	f := newFake()
	a := appenderOn(f, "k")
	batch := []messaging.NewMessage{
		msg("", "u", "c"), msg("a/b", "u", "c"), msg("a\x00", "u", "c"), msg("a\xff", "u", "c"), msg(strings.Repeat("a", maxConv+1), "u", "c"),
		msg("k", "u", ""), msg("k", "u", "a\x00b"), msg("k", "u", "\xff"), msg("k", "u", strings.Repeat("c", maxCID+1)),
		{Conv: "k", CID: "c"}, {Conv: "k", From: msg("k", "u", "c").From, CID: "large", Body: make([]byte, maxBody+1)},
	}
	for i, r := range mustAppend(t, a, batch...) {
		if r.Outcome != messaging.Refused || r.Reason == "" {
			t.Errorf("message %d is %+v", i, r)
		}
	}
	if f.asked != 0 {
		t.Errorf("%d inserts were made", f.asked)
	}
}

// Messages of many conversations need as many inserts as the longest has messages.
func TestRounds(t *testing.T) {
	f := newFake()
	var convs []string
	var batch []messaging.NewMessage
	for c := range 50 {
		convs = append(convs, "k"+strconv.Itoa(c))
		for i := range 1 + c%3 {
			batch = append(batch, msg(convs[c], "u", fmt.Sprintf("%d-%d", c, i)))
		}
	}
	mustAppend(t, appenderOn(f, convs...), batch...)
	if f.asked != 3 {
		t.Errorf("%d inserts, want 3", f.asked)
	}
	// A whole batch that comes again costs one refused insert and one look-up.
	f.asked = 0
	for i, r := range mustAppend(t, appenderOn(f, convs...), batch...) {
		if r.Outcome != messaging.Known {
			t.Fatalf("message %d is %+v", i, r)
		}
	}
	if f.asked != 1 {
		t.Errorf("%d inserts for a batch that is known, want 1", f.asked)
	}
}

func TestTakeGivesUpWithItsContext(t *testing.T) {
	fl := newFlights()
	_, _, release, err := fl.take(t.Context(), []*group{{conv: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	mine, rest, release2, err := fl.take(t.Context(), []*group{{conv: "a"}, {conv: "b"}})
	if err != nil || len(mine) != 1 || len(rest) != 1 || mine[0].conv != "b" {
		t.Fatalf("took %v, left %v, %v", mine, rest, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := fl.take(ctx, rest); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	release()
	release2()
	if mine, _, _, err := fl.take(t.Context(), rest); err != nil || len(mine) != 1 {
		t.Errorf("took %v, %v after the release", mine, err)
	}
}

// [r] Several processes write the same conversations: batches come again, in other cuts,
// after errors of which nobody knows what was stored. In the end every conversation is
// gapless, holds each message once, each sender's in order, and every answer was true.
func TestManyWritersUnderErrors(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.Itoa(int(seed)), func(t *testing.T) { chaos(t, seed, false) })
		t.Run(strconv.Itoa(int(seed))+" joining", func(t *testing.T) { chaos(t, seed, true) })
	}
}

const (
	chaosSenders  = 4
	chaosMessages = 120
)

// chaos lets each lane be worked twice. When they join, the first owners of all lanes are
// one process, and the second ones another.
func chaos(t *testing.T, seed uint64, join bool) {
	f := newFake()
	convs := []string{"a", "b", "c"}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	sometimes := func([]*entry) error {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(6) == 0 {
			return errAway
		}
		return nil
	}
	f.before, f.after = sometimes, sometimes
	together := []*appender{appenderOn(f, convs...).joining(), appenderOn(f, convs...).joining()}
	var wg sync.WaitGroup
	for sender := range chaosSenders {
		var all []messaging.NewMessage // of this sender, as its lane holds them
		own := rand.New(rand.NewPCG(seed, uint64(sender)+2))
		for i := range chaosMessages {
			all = append(all, msg(convs[own.IntN(len(convs))], "u"+strconv.Itoa(sender), strconv.Itoa(i)))
		}
		// Two owners: the second one is a successor that works the lane from its start
		// while the first one still does.
		for owner := range uint64(2) {
			cuts := rand.New(rand.NewPCG(seed+100, uint64(sender)*2+owner))
			a := appenderOn(f, convs...)
			if join {
				a = together[owner]
			}
			wg.Go(func() { workLane(t, f, a, convs, all, cuts) })
		}
	}
	wg.Wait()
	checkChaos(t, f, convs)
}

// workLane appends a lane's messages in order, in batches, each until it succeeds.
func workLane(t *testing.T, f *fakeStore, a *appender, convs []string, all []messaging.NewMessage, cuts *rand.Rand) {
	for done := 0; done < len(all); {
		n := min(1+cuts.IntN(30), len(all)-done)
		res, err := a.append(t.Context(), all[done:done+n])
		if err != nil {
			for _, conv := range convs {
				a.cache.setKnown(conv)
			}
			continue // the lane repeats the call
		}
		for i, r := range res {
			m := all[done+i]
			f.mu.Lock()
			s := f.byID[messageID(m.Conv, r.Seq)]
			f.mu.Unlock()
			if s == nil || s.msg.CID != m.CID || s.msg.From != m.From {
				t.Errorf("%s of %s was answered with %+v, which is %+v", m.CID, m.From, r, s)
				return
			}
		}
		done += n
	}
}

func checkChaos(t *testing.T, f *fakeStore, convs []string) {
	total := 0
	for _, conv := range convs {
		msgs, gapless := f.history(conv)
		if !gapless {
			t.Errorf("conversation %s has a hole behind %d", conv, len(msgs))
		}
		total += len(msgs)
		latest := map[string]int{}
		for _, m := range msgs {
			i, _ := strconv.Atoi(m.CID)
			if last, ok := latest[m.From.Raw()]; ok && i <= last {
				t.Errorf("conversation %s: message %d of %s stands behind %d", conv, i, m.From, last)
			}
			latest[m.From.Raw()] = i
		}
	}
	if total != chaosSenders*chaosMessages {
		t.Errorf("%d messages are stored, want %d", total, chaosSenders*chaosMessages)
	}
}
