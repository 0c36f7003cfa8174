package lane_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

var errAway = errors.New("the store is away")

// While the business fails, for longer than the ack wait and the pin live, its lane
// waits, in order and undisturbed; the other lane works on.
func TestLaneHoldsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 2, AckWait: 2 * time.Second})
	ids := users(2)
	st := newStore()
	var away atomic.Bool
	away.Store(true)
	b := &business{st: st, do: func(_ context.Context, ev envelope.Event) error {
		if away.Load() && ev.User == ids[0] && string(ev.Data) == "3" {
			return errAway
		}
		return nil
	}}
	w := s.start("w1", b, func(c *lane.Config) { c.AckWait = 2 * time.Second })
	p := s.sender(ids...)
	p.send(600) // more than a batch and the one fetched behind it
	st.await(s, 600+2)
	before := w.metric(t, "wirepost_worker_lane_resets_total")
	const retries = "wirepost_worker_lane_retries_total"
	eventually(s, "some retries, 2 s apart", func() bool { return w.metric(t, retries) >= 7 }) // ≥ 5 s
	if n := w.metric(t, retries); n > 9 {
		t.Errorf("%v retries in 5 s", n)
	}
	away.Store(false)
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	if n := w.metric(t, "wirepost_worker_lane_resets_total"); n != before {
		t.Errorf("%v resets while the lane was held", n-before)
	}
}

// A lane that is held takes no more messages than it has room for. What comes behind them is
// counted all the same.
func TestLagIsToldWhileALaneIsHeld(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, AckWait: 2 * time.Second})
	g := gate{make(chan struct{})}
	st := newStore()
	w := s.start("w1", &business{st: st, do: g.wait}, func(c *lane.Config) { c.AckWait, c.Batch = 2*time.Second, 16 })
	p := s.sender(users(1)...)
	p.send(100)
	eventually(s, "more than the lane takes", func() bool { return w.metric(t, lag) == 100 })
	p.send(900) // of which it asks for a few at most
	eventually(s, "all are counted", func() bool { return w.metric(t, lag) == 1000 })
	close(g.open)
	st.await(s, 1000)
	s.emptied()
	eventually(s, "none is left", func() bool { return w.metric(t, lag) == 0 })
}

// picky is a business with poison in its batches.
type picky struct {
	business
	poison string // frames with this content are dead
	panics string // frames with this content make it panic
}

func (p *picky) Work(ctx context.Context, batch []envelope.Event) (dead []messaging.Dead, err error) {
	for i, ev := range batch {
		switch string(ev.Data) {
		case p.panics:
			panic("boom at " + p.panics)
		case p.poison:
			dead = append(dead, messaging.Dead{Index: i, Reason: "it is poison"})
		default:
			p.st.put(ev)
		}
	}
	return dead, nil
}

// numbers is a store that does not mind holes: the poison makes some.
func (p *picky) settled(s *system, want int) {
	s.t.Helper()
	s.emptied()
	if n, _ := p.st.count(); n != want {
		s.t.Errorf("%d frames stored, want %d", n, want)
	}
}

func TestPoisonIsDeadWithItsReason(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 1})
	b := &picky{poison: "5", panics: "none", business: business{st: newStore()}}
	ids := users(1)
	p := s.sender(ids...)
	p.send(20)
	s.start("w1", b)
	dead := s.dead(1)
	b.settled(s, 19)
	want := frame(1, ids[0], 5)
	if m := dead[0]; m.Subject != subject.Dead(0, ids[0]) || string(m.Data) != "5" ||
		m.Header.Get("ce-reason") != "it is poison" || m.Header.Get("ce-source") != want.Header["ce-source"][0] ||
		m.Header.Get("Nats-Pin-Id") != "" {
		t.Errorf("dead: %s %q %v", m.Subject, m.Data, m.Header)
	}
}

func TestPanicIsDeadAndItsNeighboursAreNot(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 1})
	b := &picky{poison: "none", panics: "7", business: business{st: newStore()}}
	p := s.sender(users(1)...)
	p.send(20)
	s.start("w1", b)
	dead := s.dead(1)
	b.settled(s, 19)
	if r := dead[0].Header.Get("ce-reason"); string(dead[0].Data) != "7" || !strings.Contains(r, "boom at 7") {
		t.Errorf("dead: %q because %q", dead[0].Data, r)
	}
}

// What cannot be read is dead in its place; what a hostile header asks of JetStream is
// not done to the dead stream.
func TestUnreadableIsDead(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	s.start("w1", &business{st: st})
	id := users(1)[0]
	good := frame(1, id, 1)
	for _, m := range []*nats.Msg{
		{Subject: "im.up.0.a.b", Header: good.Header, Data: []byte("two tokens")},
		{Subject: "im.up.0.=61", Header: good.Header, Data: []byte("not canonical")},
		{Subject: good.Subject, Data: []byte("no headers")},
		{Subject: good.Subject, Data: []byte("hostile"), Header: nats.Header{"Nats-Expected-Last-Msg-Id-x": {"x"}, "ce-type": {"im.frame"}}},
		good,
	} {
		if _, err := s.js.PublishMsg(s.ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	st.await(s, 1)
	s.emptied()
	for i, want := range []struct{ user, data, reason string }{
		{"unknown", "two tokens", "im.up.0.a.b"}, {"unknown", "not canonical", "im.up.0.=61"},
		{id.Token(), "no headers", "ce-type"}, {id.Token(), "hostile", "ce-source"},
	} {
		m := s.dead(4)[i]
		if m.Subject != subject.Dead(0, userid.MustParse(want.user)) || string(m.Data) != want.data ||
			!strings.Contains(m.Header.Get("ce-reason"), want.reason) {
			t.Errorf("dead: %s %q %v, want %+v", m.Subject, m.Data, m.Header, want)
		}
	}
}

// What is as large as NATS takes, or JetStream's headers, leaves no room for a reason: it is
// cut, and its lane goes on.
func TestTheLargestIsDead(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	s.start("w1", &business{st: st})
	id := users(1)[0]
	good := frame(1, id, 1)
	most := int(s.js.Conn().MaxPayload())
	body := bytes.Repeat([]byte("x"), most)
	long := nats.Header{"x-long": {strings.Repeat("h", 60<<10)}}
	for _, m := range []*nats.Msg{{Subject: good.Subject, Data: body}, {Subject: good.Subject, Header: long, Data: []byte("small")}, good} {
		if _, err := s.js.PublishMsg(s.ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	st.await(s, 1)
	s.emptied()
	dead := s.dead(2)
	if m, r := dead[0], dead[0].Header.Get("ce-reason"); m.Subject != subject.Dead(0, id) || !bytes.Equal(m.Data, body[:64<<10]) ||
		!strings.Contains(r, "ce-type") || !strings.Contains(r, strconv.Itoa(most)) {
		t.Errorf("dead: %s, %d bytes because %q", m.Subject, len(m.Data), r)
	}
	if m := dead[1]; string(m.Data) != "small" || m.Header.Get("x-long") != "" || !strings.Contains(m.Header.Get("ce-reason"), "ce-type") {
		t.Errorf("dead: %q, %d headers", m.Data, len(m.Header))
	}
}

// A stop lets the batch at work end, gives up one that cannot, and leaves the lane
// clean: the next owner suspects no message.
func TestStopReleasesCleanly(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 1, PinnedTTL: longTTL, LeaseTTL: longTTL})
	st := newStore()
	taken := make(chan struct{}, 100)
	w1 := s.start("w1", &business{st: st, do: func(context.Context, envelope.Event) error {
		taken <- struct{}{}
		return errAway
	}})
	p := s.sender(users(1)...)
	p.send(200)
	<-taken
	began := time.Now()
	w1.stop()
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("stop took %v", d)
	}
	g := gate{make(chan struct{})}
	began = time.Now()
	s.start("w2", &business{st: st, do: g.wait})
	var rec struct {
		Owner string
		Until uint64
	}
	eventually(s, "the lane has its next owner", func() bool {
		kv, err := s.js.KeyValue(s.ctx, stream.Suspects)
		if err != nil {
			t.Fatal(err)
		}
		e, err := kv.Get(s.ctx, "0")
		return err == nil && json.Unmarshal(e.Value(), &rec) == nil && strings.HasPrefix(rec.Owner, "w2/")
	})
	if rec.Until != 0 { // it is worked in smaller batches
		t.Errorf("the next owner suspects all up to %d", rec.Until)
	}
	close(g.open)
	st.await(s, p.total())
	if d := time.Since(began); d > longTTL/2 {
		t.Errorf("the next owner needed %v", d)
	}
	s.emptied()
	st.check(t, p.total())
}

// The operator deletes the lane's consumer, its stream, everything; the server restarts.
func TestLaneComesBack(t *testing.T) {
	for name, harm := range map[string]func(s *system){
		"consumer deleted": func(s *system) {
			if err := s.js.DeleteConsumer(s.ctx, stream.Up(0), stream.Consumer); err != nil {
				s.t.Fatal(err)
			}
		},
		"stream deleted": func(s *system) {
			if err := s.js.DeleteStream(s.ctx, stream.Up(0)); err != nil {
				s.t.Fatal(err)
			}
		},
		"everything deleted": func(s *system) {
			for name := range s.js.StreamNames(s.ctx).Name() {
				if err := s.js.DeleteStream(s.ctx, name); err != nil {
					s.t.Fatal(err)
				}
			}
		},
		"server restarted": func(s *system) {
			s.server.Shutdown()
			if err := s.server.Restart(); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, streams.Layout{Lanes: 1})
			st := newStore()
			js := s.connect(s.server.URL())
			keeper := streams.NewKeeper(js, s.layout, s.log, prometheus.NewRegistry())
			kctx, stop := context.WithCancel(s.ctx)
			kept := make(chan struct{})
			go func() { defer close(kept); keeper.Keep(kctx) }()
			defer func() { stop(); <-kept }()
			s.startOn(js, "w1", &business{st: st}, func(c *lane.Config) { c.Missing = keeper.Missing })
			p := s.sender(users(1)...)
			p.send(50)
			st.await(s, 50)
			s.emptied()
			harm(s)
			began := time.Now()
			eventually(s, "the lane takes messages", func() bool {
				_, err := s.js.PublishMsg(s.ctx, frame(1, p.ids[0], 51))
				return err == nil
			})
			st.await(s, 51)
			t.Logf("back after %v", time.Since(began))
			s.emptied()
		})
	}
}
