package mongostore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wirepost/wirepost/worker/messaging"
)

// port is a store in front of which inserts wait, as in front of one that is slow.
type port struct {
	*fakeStore
	open  chan struct{} // each value lets one insert in; closed: all
	takes time.Duration // each insert

	mu    sync.Mutex
	came  []string // the conversations of each insert
	began []time.Time
}

func (p *port) insert(ctx context.Context, entries []*entry, ordered bool) ([]refusal, error) {
	var convs []string
	for _, e := range entries {
		convs = append(convs, e.msg.Conv)
	}
	p.mu.Lock()
	p.came, p.began = append(p.came, strings.Join(convs, " ")), append(p.began, time.Now())
	p.mu.Unlock()
	select {
	case <-p.open:
		time.Sleep(p.takes) // in the time of synctest
		return p.fakeStore.insert(ctx, entries, ordered)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func portOf(convs ...string) (*port, *appender, *appender) {
	p := &port{fakeStore: newFake(), open: make(chan struct{})}
	alone := appenderOn(p.fakeStore, convs...)
	alone.back = p
	return p, alone.joining(), alone
}

// call is one Append under way.
type call struct {
	res  []messaging.Appended
	err  error
	done chan struct{}
}

// appending starts an Append and returns when it waits.
func appending(ctx context.Context, joining, alone *appender, msgs ...messaging.NewMessage) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.res, c.err = companyFirst(ctx, joining, alone, func(a *appender) ([]messaging.Appended, error) {
			for _, m := range msgs {
				a.cache.setKnown(m.Conv)
			}
			return a.append(ctx, msgs)
		})
	}()
	synctest.Wait()
	return c
}

func (c *call) want(t *testing.T, want ...messaging.Outcome) {
	t.Helper()
	<-c.done
	if c.err != nil || len(c.res) != len(want) {
		t.Errorf("answered with %+v, %v", c.res, c.err)
		return
	}
	for i, r := range c.res {
		if r.Outcome != want[i] {
			t.Errorf("message %d is %+v, want outcome %d", i, r, want[i])
		}
	}
}

// What comes while an insert is at the store goes out in one; each call hears of its own.
func TestRefusalsReachTheirMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, joining, alone := portOf("a", "b", "c", "d", "e", "f")
		p.put(msg("d", "u", "known"), 1)
		poison := msg("c", "u", "bad")
		poison.Body = []byte("poison")
		first := appending(t.Context(), joining, alone, msg("a", "u", "1"))
		second := appending(t.Context(), joining, alone, msg("b", "u", "2"), poison)
		third := appending(t.Context(), joining, alone, msg("d", "u", "known"), msg("e", "u", "3"))
		fourth := appending(t.Context(), joining, alone, msg("f", "u", "4"))
		close(p.open)
		first.want(t, messaging.Stored)
		second.want(t, messaging.Stored, messaging.Refused)
		third.want(t, messaging.Known, messaging.Stored)
		fourth.want(t, messaging.Stored)
		if got := strings.Join(p.came, ", "); got != "a, b c d e f" {
			t.Errorf("inserts are %q", got)
		}
	})
}

// An error reaches all whose messages were in the insert, and each repeats by itself: the
// one that is the reason fails, the others are stored.
func TestPoisonedMemberFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, joining, alone := portOf("a", "b", "c", "d")
		p.before = func(entries []*entry) error {
			for _, e := range entries {
				if e.msg.CID == "killer" {
					return errAway
				}
			}
			return nil
		}
		first := appending(t.Context(), joining, alone, msg("a", "u", "1"))
		good := appending(t.Context(), joining, alone, msg("b", "u", "2"))
		bad := appending(t.Context(), joining, alone, msg("c", "u", "killer"))
		other := appending(t.Context(), joining, alone, msg("d", "u", "3"))
		p.open <- struct{}{}
		p.open <- struct{}{}
		synctest.Wait()
		if len(p.came) != 5 || p.came[1] != "b c d" {
			t.Errorf("inserts are %q, want one of three, and each of these again by itself", p.came)
		}
		close(p.open)
		first.want(t, messaging.Stored)
		good.want(t, messaging.Stored)
		other.want(t, messaging.Stored)
		<-bad.done
		if !errors.Is(bad.err, errAway) || errors.Is(bad.err, errInCompany) {
			t.Errorf("the poisoned one ended with %v", bad.err)
		}
		if last, ok := joining.cache.last("c"); ok {
			t.Errorf("the last number of the poisoned one's conversation is cached as %d", last)
		}
	})
}

// Without a repetition alone the caller hears the error, whoever was the reason.
func TestErrorReachesAllMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, joining, _ := portOf("a", "b", "c")
		first := appending(t.Context(), joining, joining, msg("a", "u", "1"))
		p.after = func(entries []*entry) error {
			if entries[0].msg.Conv != "a" {
				return errAway
			}
			return nil
		}
		two := []*call{appending(t.Context(), joining, joining, msg("b", "u", "2")), appending(t.Context(), joining, joining, msg("c", "u", "3"))}
		p.open <- struct{}{}
		first.want(t, messaging.Stored)
		close(p.open)
		for i, c := range two {
			if <-c.done; !errors.Is(c.err, errAway) {
				t.Errorf("member %d ended with %+v, %v", i, c.res, c.err)
			}
		}
	})
}

func TestInsertsAreBounded(t *testing.T) {
	some := func(n int) *member { return &member{entries: make([]*entry, n)} }
	for name, c := range map[string]struct {
		waiting []*member
		want    int
	}{
		"none":          {nil, 0},
		"one":           {[]*member{some(1)}, 1},
		"one too large": {[]*member{some(joinMessages + 1), some(1)}, 1},
		"all":           {[]*member{some(joinMessages - 1), some(1)}, 2},
		"too many":      {[]*member{some(joinMessages), some(1)}, 1},
		"too heavy":     {[]*member{{bytes: joinBytes}, {bytes: 1}}, 1},
		"heavy":         {[]*member{{bytes: joinBytes - 1}, {bytes: 1}, {bytes: 1}}, 2},
	} {
		if n := together(c.waiting); n != c.want {
			t.Errorf("%s: %d go together, want %d", name, n, c.want)
		}
	}
}

// A caller that gives up is not waited for, its messages do not go out later, and an insert
// that nobody waits for ends.
func TestMembersMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, joining, alone := portOf("a", "b", "c")
		ctx, fly := context.WithCancel(t.Context())
		flying := appending(ctx, joining, alone, msg("a", "u", "1"))
		ctx, wait := context.WithCancel(t.Context())
		waiting := appending(ctx, joining, alone, msg("b", "u", "2"))
		staying := appending(t.Context(), joining, alone, msg("c", "u", "3"))
		for _, c := range []struct {
			*call
			leave context.CancelFunc
		}{{waiting, wait}, {flying, fly}} { // in this order: the end of an insert begins the next
			c.leave()
			if <-c.done; !errors.Is(c.err, context.Canceled) {
				t.Errorf("who left ended with %+v, %v", c.res, c.err)
			}
		}
		close(p.open)
		staying.want(t, messaging.Stored)
		if got := strings.Join(p.came, ", "); got != "a, c" {
			t.Errorf("inserts are %q", got)
		}
		wantHistory(t, p.fakeStore, "a", "")
	})
}

// A busy store is asked once in a pace, one with little to do at once.
func TestPaceOfInserts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var convs []string
		var full []messaging.NewMessage
		for i := range fullInsert {
			convs = append(convs, "k"+strconv.Itoa(i))
			full = append(full, msg(convs[i], "u", convs[i]))
		}
		p, joining, alone := portOf(convs...)
		close(p.open)
		for i, msgs := range [][]messaging.NewMessage{{msg("k0", "u", "1")}, {msg("k0", "u", "2")}, full, {msg("k0", "u", "3")}, {msg("k0", "u", "4")}} {
			began := time.Now()
			<-appending(t.Context(), joining, alone, msgs...).done
			want := time.Duration(0)
			if i == 3 {
				want = insertPace
			}
			if waited := p.began[i].Sub(began); waited != want {
				t.Errorf("insert %d was put off by %v, want %v", i, waited, want)
			}
		}
	})
}

// Lanes that write the same conversations at once never have one twice in an unordered
// insert, or a message could overtake one of its conversation that failed.
func TestConversationIsOnceInAnInsert(t *testing.T) { synctest.Test(t, testConversationIsOnce) }

func testConversationIsOnce(t *testing.T) {
	const lanes, calls = 8, 60
	convs := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	p, joining, alone := portOf(convs...)
	close(p.open)
	p.takes = time.Millisecond
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := range calls {
				var msgs []messaging.NewMessage
				for k := range 3 {
					msgs = append(msgs, msg(convs[(lane+i+k)%len(convs)], "u", fmt.Sprintf("%d-%d-%d", lane, i, k)))
				}
				if _, err := companyFirst(t.Context(), joining, alone, func(a *appender) ([]messaging.Appended, error) {
					return a.append(t.Context(), msgs)
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	joint := 0
	for _, insert := range p.came {
		seen := map[string]bool{}
		for conv := range strings.SplitSeq(insert, " ") {
			if seen[conv] {
				t.Fatalf("a conversation is twice in the insert %q", insert)
			}
			seen[conv] = true
		}
		if len(seen) > 3 {
			joint++
		}
	}
	if joint == 0 {
		t.Error("no insert was joined")
	}
	total := 0
	for _, conv := range convs {
		msgs, gapless := p.history(conv)
		if total += len(msgs); !gapless {
			t.Errorf("conversation %s has a hole", conv)
		}
	}
	if total != lanes*calls*3 {
		t.Errorf("%d messages are stored, want %d", total, lanes*calls*3)
	}
}
