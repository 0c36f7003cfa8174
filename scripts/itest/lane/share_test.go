package lane_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/streams"
)

func TestOneMessageIsWorkedAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	s.start("w1", &business{st: st})
	p := s.sender(users(1)...)
	p.send(1)
	st.await(s, 1)
	slowest := time.Duration(0)
	for i := 2; i <= 30; i++ { // 3 s: over the expiry of some pulls
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		p.send(1)
		st.await(s, i)
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("slowest of 30: %v", slowest)
	s.emptied()
	st.check(t, p.total())
}

func TestTwoWorkersShareTheLanes(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 4})
	st := newStore()
	b1, b2 := &business{st: st}, &business{st: st}
	w1, w2 := s.start("w1", b1), s.start("w2", b2)
	const owned = "wirepost_worker_lanes_owned"
	eventually(s, "two lanes each", func() bool { return w1.metric(t, owned) == 2 && w2.metric(t, owned) == 2 })
	p := s.sender(users(4)...)
	p.send(500)
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	if b1.calls() == 0 || b2.calls() == 0 {
		t.Errorf("batches: %d and %d, want both workers to work", b1.calls(), b2.calls())
	}
}

// A lane that is a worker's share and does not answer it is nobody's.
func TestOnlyALaneThatAnswersIsOwned(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 2})
	w := s.start("w1", &business{st: newStore()})
	const owned = "wirepost_worker_lanes_owned"
	eventually(s, "both lanes, without a message", func() bool { return w.metric(t, owned) == 2 })
	if err := s.js.DeleteConsumer(s.ctx, stream.Up(1), stream.Consumer); err != nil {
		t.Fatal(err)
	}
	eventually(s, "one lane", func() bool { return w.metric(t, owned) == 1 })
	if err := streams.Ensure(s.ctx, s.js, s.layout); err != nil {
		t.Fatal(err)
	}
	eventually(s, "both lanes again", func() bool { return w.metric(t, owned) == 2 })
	w.stop()
	if n := w.metric(t, owned); n != 0 {
		t.Errorf("%v lanes after the stop", n)
	}
}

// Workers come and go gracefully under load: nothing is lost, and nothing waits for a pin
// or a lease to end.
func TestWorkersComeAndGo(t *testing.T) {
	s := newSystem(t, streams.Layout{Lanes: 4, PinnedTTL: longTTL, LeaseTTL: longTTL})
	st := newStore()
	p := s.sender(users(4)...)
	stop := p.trickle()
	w1 := s.start("w1", &business{st: st})
	more := func(n int) {
		t.Helper()
		have, _ := st.count()
		st.await(s, have+n)
	}
	more(100)
	w2 := s.start("w2", &business{st: st})
	const owned = "wirepost_worker_lanes_owned"
	eventually(s, "two lanes each", func() bool { return w1.metric(t, owned) == 2 && w2.metric(t, owned) == 2 })
	more(100)
	w1.stop()
	began := time.Now()
	p.send(1)
	sent := p.soFar()
	eventually(s, "all lanes are worked", func() bool { return st.has(sent) })
	if d := time.Since(began); d > longTTL/2 {
		t.Errorf("lanes of a worker that left are worked after %v", d)
	}
	more(400)
	w3 := s.start("w3", &business{st: st})
	eventually(s, "two lanes each", func() bool { return w3.metric(t, owned) == 2 && w2.metric(t, owned) == 2 })
	more(100)
	stop()
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	_, twice := st.count()
	t.Logf("%d frames, %d of them worked twice", p.total(), twice)
}

// Frames of the largest size wait by the hundred: a lane holds only some of their bytes.
func TestBytesInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, UplinkMaxBytes: 1 << 30})
	st := newStore()
	open := make(chan struct{})
	s.start("w1", &business{st: st, do: gate{open}.wait})
	id := users(1)[0]
	const frames, size = 300, 128 << 10
	for i := range frames {
		m := frame(1, id, i+1)
		m.Data = append(bytes.Repeat([]byte("0"), size), m.Data...)
		if _, err := s.js.PublishMsg(s.ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	pending := func() int {
		c, err := s.js.Consumer(s.ctx, stream.Up(0), stream.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		return c.CachedInfo().NumAckPending
	}
	eventually(s, "some are with the worker", func() bool { return pending() > 10 })
	time.Sleep(time.Second) // nothing tells that no more will be asked for
	if n := pending(); n > 3*(4<<20)/size {
		t.Errorf("%d frames of %d KiB are with the worker", n, size>>10)
	}
	close(open)
	s.emptied()
	if n, _ := st.count(); n != frames {
		t.Errorf("%d frames stored, want %d", n, frames)
	}
}

// A worker that died and comes back under its name has its lanes again at once: it does
// not wait until the pins that it left behind are over, nor its own lease.
func TestComesBackUnderItsName(t *testing.T) {
	const long = 50 * time.Second // of a pin and a lease: the test would end before
	s := newSystem(t, streams.Layout{Lanes: 2, PinnedTTL: long, LeaseTTL: long})
	st := newStore()
	p := s.sender(users(2)...)
	w := s.start("w", &business{st: st})
	p.send(20)
	st.await(s, p.total())
	w.Abort()
	<-w.done
	// What the dead one had asked for may still stand at the server, and gets the pin when its
	// heir ends the old one.
	nc := s.connect(s.server.URL()).Conn()
	left, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		next := "$JS.API.CONSUMER.MSG.NEXT." + stream.Up(n) + "." + stream.Consumer
		if err := nc.PublishRequest(next, left.Subject, fmt.Appendf(nil, `{"batch":1,"expires":%d,"group":%q}`, long, stream.Group)); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	s.start("w", &business{st: st})
	p.send(20)
	began := time.Now()
	st.await(s, p.total())
	if d := time.Since(began); d > long/2 {
		t.Errorf("back after %v", d)
	}
	if n, _, err := left.Pending(); err != nil || n == 0 {
		t.Errorf("what was left behind got %d messages (%v): the test proves little", n, err)
	}
	s.emptied()
	st.check(t, p.total())
}
