package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/client"
)

const (
	chaosUsers  = 20
	chaosWindow = 20 // sends of a user that wait for their ack
)

// ledger is what was sent and what was acknowledged, over all users.
type ledger struct {
	mu    sync.Mutex
	acked map[string]client.Result // by clientMsgId
	order map[string][]string      // by sender: clientMsgIds in the order of Send
	count atomic.Int64
	marks []mark
}

// mark is closed when count acknowledgements are there.
type mark struct {
	at int64
	ch chan struct{}
}

func newLedger() *ledger {
	return &ledger{acked: map[string]client.Result{}, order: map[string][]string{}}
}

// when returns a channel that is closed at the n-th acknowledgement. Called before any.
func (l *ledger) when(n int64) <-chan struct{} {
	m := mark{n, make(chan struct{})}
	l.marks = append(l.marks, m)
	return m.ch
}

func (l *ledger) sent(user, cid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order[user] = append(l.order[user], cid)
}

func (l *ledger) ack(cid string, res client.Result) {
	l.mu.Lock()
	l.acked[cid] = res
	l.mu.Unlock()
	n := l.count.Add(1)
	for _, m := range l.marks {
		if m.at == n {
			close(m.ch)
		}
	}
}

// sendAll sends n messages of a user to random others and waits for every ack.
func (l *ledger) sendAll(ctx context.Context, d *device, n int, peers []string) error {
	var open []*client.Pending
	wait := func() error {
		res, err := open[0].Wait(ctx)
		if err != nil {
			return fmt.Errorf("%s: %s was not stored: %w", d.user, open[0].ClientMsgID, err)
		}
		l.ack(open[0].ClientMsgID, res)
		open = open[1:]
		return nil
	}
	for i := range n {
		to := peers[rand.IntN(len(peers))]
		for to == d.user {
			to = peers[rand.IntN(len(peers))]
		}
		p, err := d.c.Send(ctx, to, map[string]any{"text": fmt.Sprintf("%s says %d", d.user, i)})
		if err != nil {
			return fmt.Errorf("%s: send: %w", d.user, err)
		}
		l.sent(d.user, p.ClientMsgID)
		if open = append(open, p); len(open) == chaosWindow {
			if err := wait(); err != nil {
				return err
			}
		}
	}
	for len(open) > 0 {
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// 20 users, 5,000 messages (chaosMessages) in both directions at random; an edge and a worker are killed
// in the middle and started again; one user has a second device on the other edge, which
// is stopped and resumes.
func TestKillAnEdgeAndAWorker(t *testing.T) {
	onBothStores(t, func(t *testing.T, uri string) {
		ctx := testContext(t, 85*time.Second)
		s := start(t, uri)
		var users []string
		var devices []*device
		for i := range chaosUsers {
			user := fmt.Sprintf("user %d/*", i) // hostile, but an id
			users = append(users, user)
			devices = append(devices, newDevice(t, user, "phone", s.url(i%2), s.url(1-i%2)))
		}
		second := newDevice(t, users[0], "laptop", s.url(1))
		for _, d := range append(devices[:len(devices):len(devices)], second) {
			d.awaitLogin(ctx, 1)
			d.await(ctx, "synced", d.isSynced) // from here on it has a token to resume with
		}

		l := newLedger()
		resumeAt, killAt, worked := l.when(chaosMessages/5), l.when(chaosMessages*2/5), l.when(chaosMessages/2)
		var senders sync.WaitGroup
		for _, d := range devices {
			senders.Go(func() {
				if err := l.sendAll(ctx, d, chaosMessages/chaosUsers, users); err != nil {
					t.Error(err)
				}
			})
		}
		await(t, ctx, resumeAt, "a fifth is acknowledged")
		second.reborn(s.url(1))
		await(t, ctx, killAt, "two fifths are acknowledged")
		for _, w := range s.workers {
			if n := w.metric("wirepost_worker_messages_total", `outcome="stored"`); n == 0 {
				t.Errorf("%s has stored nothing", w.name)
			}
		}
		if login := second.awaitLogin(ctx, 2); !login.Resumed {
			t.Errorf("the second device was not resumed: %+v", login)
		}
		s.edges[0].kill()
		s.workers[0].kill()
		s.edges[0].start()
		await(t, ctx, worked, "one worker goes on alone")
		s.workers[0].start()
		senders.Wait()
		if n := l.count.Load(); n != chaosMessages {
			t.Fatalf("%d of %d acknowledged", n, chaosMessages)
		}
		s.awaitReady()
		verify(t, ctx, l, devices, second)
	})
}

func await(t *testing.T, ctx context.Context, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-ctx.Done():
		t.Fatalf("it did not come to this: %s", what)
	}
}

// verify compares acknowledgements, history, and what each device was delivered.
func verify(t *testing.T, ctx context.Context, l *ledger, devices []*device, more ...*device) {
	t.Helper()
	convs := map[string]string{} // conversation → a member
	for _, d := range devices {
		for _, cid := range l.order[d.user] {
			convs[l.acked[cid].ConvID] = d.user
		}
	}
	byUser := map[string]*device{}
	for _, d := range devices {
		byUser[d.user] = d
	}
	history := map[string][]gotMessage{}
	found := map[string]int{}
	want := map[string]int{} // messages by user
	for conv, member := range convs {
		for i, m := range byUser[member].history(ctx, conv) {
			if m.Seq != int64(i+1) {
				t.Fatalf("history of %s: number %d has seq %d", conv, i+1, m.Seq)
			}
			if res, ok := l.acked[m.ClientMsgID]; !ok || res.ConvID != conv || res.Seq != m.Seq {
				t.Errorf("history of %s has %s at %d, acknowledged %v as %+v", conv, m.ClientMsgID, m.Seq, ok, res)
			}
			found[m.ClientMsgID]++
			history[conv] = append(history[conv], gotMessage{m.Seq, m.ClientMsgID, m.SendUserID, string(m.MsgBody)})
			want[m.SendUserID]++
			want[m.ReceivedUserID]++
		}
	}
	for cid := range l.acked {
		if found[cid] != 1 {
			t.Errorf("%s is %d times in history", cid, found[cid])
		}
	}
	verifySendOrder(t, l, history)
	for _, d := range append(devices, more...) {
		d.awaitTotal(ctx, want[d.user])
		d.check()
		verifyDelivered(t, d, want[d.user], history)
	}
}

// verifySendOrder: the messages of one sender in a conversation are in the order of Send.
func verifySendOrder(t *testing.T, l *ledger, history map[string][]gotMessage) {
	t.Helper()
	place := map[string]int{}
	for _, cids := range l.order {
		for i, cid := range cids {
			place[cid] = i
		}
	}
	for conv, msgs := range history {
		last := map[string]int{}
		for _, m := range msgs {
			if before, ok := last[m.from]; ok && place[m.cid] < before {
				t.Errorf("%s: at seq %d %s overtook an earlier send of %s", conv, m.seq, m.cid, m.from)
			}
			last[m.from] = place[m.cid]
		}
	}
}

// verifyDelivered: what the device was delivered is the history of its conversations.
func verifyDelivered(t *testing.T, d *device, want int, history map[string][]gotMessage) {
	t.Helper()
	got := d.messages()
	n := 0
	for conv, msgs := range got {
		n += len(msgs)
		if len(msgs) != len(history[conv]) {
			t.Errorf("%s of %s: %d messages of %s, history has %d", d.name, d.user, len(msgs), conv, len(history[conv]))
			continue
		}
		for i, m := range msgs {
			if m != history[conv][i] {
				t.Errorf("%s of %s: %+v, history has %+v", d.name, d.user, m, history[conv][i])
			}
		}
	}
	if n != want {
		t.Errorf("%s of %s: %d messages, want %d", d.name, d.user, n, want)
	}
}
