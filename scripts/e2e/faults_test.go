package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
)

// All NATS data is deleted under connected clients: they are told, sync, and go on, and
// nothing that was acknowledged is missing.
func TestAllOfNATSIsLost(t *testing.T) {
	onBothStores(t, func(t *testing.T, uri string) {
		ctx := testContext(t, 80*time.Second)
		s := start(t, uri)
		alice := newDevice(t, "alice", "phone", s.url(0))
		bob := newDevice(t, "bob", "phone", s.url(1))
		alice.awaitLogin(ctx, 1)
		bob.awaitLogin(ctx, 1)
		n := 0
		talk := func(k int) {
			for range k {
				n++
				alice.stored(ctx, "bob", fmt.Sprint("a", n))
				n++
				bob.stored(ctx, "alice", fmt.Sprint("b", n))
			}
		}
		talk(10)
		bob.awaitTotal(ctx, n)

		var open []*client.Pending
		for i := range 20 { // some of these are with NATS when it goes
			open = append(open, alice.send(ctx, "bob", fmt.Sprint("between ", i)))
		}
		s.wipeNATS()
		for _, p := range open {
			if _, err := p.Wait(ctx); err != nil {
				t.Fatalf("a send was not stored: %v", err)
			}
		}
		n += len(open)
		told := func(d *device) func() bool {
			return func() bool {
				unresumed := 0
				for _, l := range d.logins[1:] {
					if !l.Resumed {
						unresumed++
					}
				}
				return unresumed+events(d, func(n client.Notice) bool { return n.Code == protocol.NoticeResync }) > 0
			}
		}
		alice.await(ctx, "told to sync", told(alice))
		bob.await(ctx, "told to sync", told(bob))
		talk(10)
		for _, d := range []*device{alice, bob} {
			d.awaitTotal(ctx, n)
			d.check()
		}
		conv := alice.stored(ctx, "bob", "last").ConvID
		n++
		if got := len(bob.history(ctx, conv)); got != n {
			t.Errorf("history has %d messages, want %d", got, n)
		}
		s.awaitReady()
	})
}

// A user who was idle for twice the age limit of the downlink reconnects and is resumed,
// with no worker alive: nobody reads the store.
func TestIdleUserResumes(t *testing.T) {
	ctx := testContext(t, 60*time.Second)
	const age = 3 * time.Second
	s := start(t, servers.Ferret(t), "DOWNLINK_MAX_AGE="+age.String(), "SWEEP_INTERVAL=1s", "HEARTBEAT=500ms")
	alice := newDevice(t, "alice", "phone", s.url(0))
	bob := newDevice(t, "bob", "phone", s.url(0))
	alice.awaitLogin(ctx, 1)
	bob.awaitLogin(ctx, 1)
	alice.stored(ctx, "bob", "the last word for a long time")
	bob.awaitTotal(ctx, 1)
	idle := time.After(2 * age) // idleness has no signal
	<-idle
	for _, w := range s.workers {
		w.kill()
	}
	bob.reborn(s.url(1))
	if login := bob.awaitLogin(ctx, 2); !login.Resumed {
		t.Errorf("bob was not resumed on the other edge: %+v", login)
	}
	for _, w := range s.workers {
		w.start()
	}
	alice.stored(ctx, "bob", "and there it goes on")
	bob.awaitTotal(ctx, 2)
	bob.check()
}

// The store is away for a while: sends wait, nothing is lost, and the workers say that
// they are not ready.
func TestStoreIsAway(t *testing.T) {
	for name, make := range map[string]func(*testing.T) (uri string, away, back func()){
		"ferretdb": func(t *testing.T) (string, func(), func()) {
			f := servers.FerretServerOf(t)
			return f.URI() + "wirepost", f.Stop, func() {
				if err := f.Start(); err != nil {
					t.Error(err)
				}
			}
		},
		"mongod": func(t *testing.T) (string, func(), func()) {
			m := servers.MongodOf(t)
			return m.URI(), m.Pause, m.Resume
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t, 80*time.Second)
			uri, away, back := make(t)
			s := start(t, uri)
			alice := newDevice(t, "alice", "phone", s.url(0))
			bob := newDevice(t, "bob", "phone", s.url(1))
			alice.stored(ctx, "bob", "before")
			bob.awaitTotal(ctx, 1)
			carol := loginRaw(t, s.url(1), "carol")
			eventually(t, 10*time.Second, "all three sessions are recorded", func() bool {
				n := 0.0
				for _, w := range s.workers {
					n += w.metric("wirepost_worker_events_total", `type="im.connected"`)
				}
				return n >= 3
			})
			away()
			carol.text(`{"msgType":3,"receivedUserId":"carol","bizType":1,"bizOptModule":1,"clientMsgId":"patience","msgBody":1}`)
			var open []*client.Pending
			for i := range 30 {
				open = append(open, alice.send(ctx, "bob", i), bob.send(ctx, "alice", i))
			}
			told := carol.next() // a refusal for now
			if told.Code != protocol.CodeUnavailable || told.ClientMsgID != "patience" || told.RetryAfterMs <= 0 {
				t.Errorf("a sender is told %+v, want code %d and retryAfterMs", told, protocol.CodeUnavailable)
			}
			eventually(t, 30*time.Second, "the workers are not ready", func() bool { return !s.workers[0].ready() && !s.workers[1].ready() })
			for _, p := range open {
				select {
				case <-p.Done():
					res, err := p.Result()
					t.Errorf("resolved without a store: %+v %v", res, err)
				default:
				}
			}
			back()
			for _, p := range open {
				if _, err := p.Wait(ctx); err != nil {
					t.Fatalf("not stored after the store came back: %v", err)
				}
			}
			for _, d := range []*device{alice, bob} {
				d.awaitTotal(ctx, 1+len(open))
				d.check()
			}
			stored := carol.next()
			for stored.Code == protocol.CodeUnavailable {
				stored = carol.next()
			}
			if stored.Seq != 1 || stored.ClientMsgID != "patience" {
				t.Errorf("what waited for the store became %+v", stored)
			}
			s.awaitReady()
		})
	}
}

// An edge that is told to stop advises its clients, who go to the other one.
func TestEdgeDrains(t *testing.T) {
	ctx := testContext(t, 60*time.Second)
	s := start(t, servers.Ferret(t), "DRAIN_NOTICE=500ms")
	alice := newDevice(t, "alice", "phone", s.url(0), s.url(1))
	bob := newDevice(t, "bob", "phone", s.url(1), s.url(0))
	for i := range 10 {
		alice.stored(ctx, "bob", i)
	}
	first := alice.awaitLogin(ctx, 1).Edge
	bob.awaitLogin(ctx, 1)
	for i, e := range s.edges {
		if e.name == first {
			s.edges[i].terminate()
		}
	}
	if login := alice.awaitLogin(ctx, 2); login.Edge == first || !login.Resumed {
		t.Errorf("second login %+v, the first was at %s", login, first)
	}
	alice.await(ctx, "told of the drain", func() bool {
		return events(alice, func(n client.Notice) bool { return n.Code == protocol.NoticeDrain }) > 0
	})
	for i := range 10 {
		alice.stored(ctx, "bob", i)
	}
	bob.awaitTotal(ctx, 20)
	for _, d := range []*device{alice, bob} {
		d.check()
	}
}
