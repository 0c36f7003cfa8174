package lane_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	takeOvers = "wirepost_worker_lane_take_overs_total"
	lag       = "wirepost_worker_lane_lag"
)

// slow makes a batch long enough that a kill falls into it.
func slow(ctx context.Context, _ envelope.Event) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Microsecond):
		return nil
	}
}

// A worker dies in the middle of its batches, again and again.
func TestKilledOwnersLoseAndReorderNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 2})
	st := newStore()
	b := &business{st: st, do: slow}
	s.start("w0", b)
	p := s.sender(users(2)...)
	stop := p.trickle()
	for range 3 {
		victim := s.start("victim", b)
		eventually(s, "the victim's share", func() bool { return victim.metric(t, "wirepost_worker_lane_messages_total") > 20 })
		p.send(300) // more than a batch, so that some are fetched and not begun
		victim.Abort()
		have, _ := st.count()
		st.await(s, have+100)
	}
	stop()
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	_, twice := st.count()
	t.Logf("%d frames, %d of them worked twice", p.total(), twice)
}

// The owner's connection stands still for longer than its pin lives, then everything
// that was under way arrives.
func TestPausedOwnerWakesUp(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	proxy := newStall(t, s.server.Server().Addr().String())
	p := s.sender(users(1)...)
	stop := p.trickle()
	sleeper := s.startOn(s.connect(proxy.url()), "sleeper", &business{st: st, do: slow})
	st.await(s, 50)
	for round := range 3 {
		proxy.freeze(true)
		other := s.start("other", &business{st: st, do: slow})
		p.send(400)
		eventually(s, "another owner", func() bool { return other.metric(t, takeOvers) >= 1 })
		have, _ := st.count()
		st.await(s, have+20)
		before := sleeper.metric(t, takeOvers)
		proxy.freeze(false)
		p.send(400)
		have, _ = st.count()
		st.await(s, have+300)
		other.stop()
		eventually(s, "the sleeper owns again", func() bool { return sleeper.metric(t, takeOvers) > before })
		have, _ = st.count()
		st.await(s, have+50)
		t.Logf("round %d: %d resets of the sleeper", round, int(sleeper.metric(t, "wirepost_worker_lane_resets_total")))
	}
	stop()
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	_, twice := st.count()
	t.Logf("%d frames, %d of them worked twice", p.total(), twice)
}

// A lone owner that loses its pin gets it back under another id: what it had fetched is
// not what the server delivers next.
func TestSameOwnerWithAnotherPinStartsAgain(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	proxy := newStall(t, s.server.Server().Addr().String())
	p := s.sender(users(1)...)
	stop := p.trickle()
	w := s.startOn(s.connect(proxy.url()), "w", &business{st: st, do: slow})
	st.await(s, 50)
	for range 3 {
		before := w.metric(t, takeOvers)
		proxy.freeze(true)
		p.send(300)
		time.Sleep(ttl + ttl/2) // the pin ends; nobody sees it
		proxy.freeze(false)
		eventually(s, "a take-over by the same worker", func() bool { return w.metric(t, takeOvers) > before })
		have, _ := st.count()
		st.await(s, have+200)
	}
	stop()
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
}

// gate holds a business back until it is opened.
type gate struct{ open chan struct{} }

func (g gate) wait(ctx context.Context, _ envelope.Event) error {
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The owner sleeps with some frames, the next one falls asleep with more, and the first
// wakes up and is pinned again: it must not go on behind what the other holds.
func TestWokenOwnerDoesNotOvertake(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, AckWait: time.Minute})
	st := newStore()
	pa, pb := newStall(t, s.server.Server().Addr().String()), newStall(t, s.server.Server().Addr().String())
	ga, gb := gate{make(chan struct{})}, gate{make(chan struct{})}
	p := s.sender(users(1)...)

	// Of two live workers the one named b is to have the lane: when it wakes up it goes on
	// in the same tenure.
	a := s.startOn(s.connect(pa.url()), "b", &business{st: st, do: ga.wait})
	p.send(100)
	eventually(s, "a has the 100", func() bool { return a.metric(t, lag) == 100 })
	pa.freeze(true)
	// Before the second is there: what comes while it holds more than half a batch waits at
	// the server. The first is sent those that it had asked for, up to 256.
	p.send(400)
	b := s.startOn(s.connect(pb.url()), "a", &business{st: st, do: gb.wait}, func(c *lane.Config) { c.Batch = 500 })
	eventually(s, "all are with the second", func() bool {
		c, err := s.js.Consumer(s.ctx, stream.Up(0), stream.Consumer)
		return err == nil && b.metric(t, takeOvers) > 0 && c.CachedInfo().NumAckPending == 500
	})
	pb.freeze(true)
	p.send(50)
	pa.freeze(false)
	close(ga.open)
	st.await(s, p.total())
	pb.freeze(false)
	close(gb.open)
	p.send(50)
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
}

// errKilled stands for the death of the process.
var errKilled = errors.New("killed")

// herd runs workers which die when they work a frame of the killer, and come back.
type herd struct {
	s      *system
	st     *store
	killer userid.ID
	slow   func(ev envelope.Event) // before each frame; may be nil
	deaths atomic.Int32
	mu     sync.Mutex
	closed bool
}

func (h *herd) start(name string) {
	var w *worker
	ready := make(chan struct{})
	b := &business{st: h.st, do: func(ctx context.Context, ev envelope.Event) error {
		if h.slow != nil {
			h.slow(ev)
		}
		if ctx.Err() != nil {
			return errKilled // died meanwhile
		}
		if ev.User != h.killer || string(ev.Data) != "2" {
			return nil
		}
		<-ready
		h.deaths.Add(1)
		w.Abort()
		<-ctx.Done()
		return errKilled
	}}
	w = h.s.start(name, b)
	close(ready)
	go func() {
		<-w.done
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.closed {
			h.start(name)
		}
	}()
	h.s.t.Cleanup(func() {
		h.mu.Lock()
		h.closed = true
		h.mu.Unlock()
	})
}

// What a death leaves in flight is worked in crowds, not one message at a time: that would
// take a write and a commit each, some 20 s on a small machine with all lanes full.
func TestWhatADeathLeavesIsWorkedInCrowds(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	taken := make(chan struct{}, 1)
	w1 := s.start("w1", &business{st: newStore(), do: func(ctx context.Context, _ envelope.Event) error {
		select {
		case taken <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	p := s.sender(users(4)...)
	p.send(150)
	<-taken
	pending := func() int {
		c, err := s.js.Consumer(s.ctx, stream.Up(0), stream.Consumer)
		if err != nil {
			return 0
		}
		return c.CachedInfo().NumAckPending
	}
	// The batch at work may be a single message, the first; what is held is a whole batch.
	eventually(s, "250 are in flight", func() bool { return pending() >= 250 })
	w1.Abort()
	b := &business{st: newStore()}
	s.start("w2", b)
	b.st.await(s, p.total())
	s.emptied()
	b.st.check(t, p.total())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.batches[0] > 16 {
		t.Errorf("the first batch after a death holds %d messages", b.batches[0])
	}
	if n := len(b.batches); n > p.total()/16+10 {
		t.Errorf("%d messages were worked in %d batches", p.total(), n)
	}
}

// A frame that kills every worker goes to the dead stream; the other lanes' frames,
// which are at work in the same process when it dies, do not.
func TestKillerFrameIsDead(t *testing.T) {
	t.Parallel()
	for name, workers := range map[string][]string{"one worker": {"w1"}, "two workers": {"w1", "w2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, streams.Layout{Lanes: 4})
			ids := users(4)
			h := &herd{s: s, st: newStore(), killer: ids[1]}
			p := s.sender(ids...)
			p.send(5)
			began := time.Now()
			for _, w := range workers {
				h.start(w)
			}
			dead := s.dead(1)
			t.Logf("dead after %v and %d deaths", time.Since(began), h.deaths.Load())
			if string(dead[0].Data) != "2" || !strings.HasSuffix(dead[0].Subject, ids[1].Token()) {
				t.Errorf("dead: %s %q, want frame 2 of %s", dead[0].Subject, dead[0].Data, ids[1])
			}
			if r := dead[0].Header.Get("ce-reason"); !strings.Contains(r, "died 2 times") {
				t.Errorf("reason %q", r)
			}
			s.emptied()
			if stored, _ := h.st.count(); stored != p.total()-1 {
				t.Errorf("%d frames stored, want all but one of %d", stored, p.total())
			}
			s.dead(1)
		})
	}
}

// A message that panics is in one crowd with one that kills: both are dead in the end, and
// the lane goes on. A panic must not take the suspicion off the one that kills.
func TestPanicAndKillerInOneCrowd(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	ids := users(1)
	h := &herd{s: s, st: newStore(), killer: ids[0], slow: func(ev envelope.Event) {
		if string(ev.Data) == "1" {
			panic("at 1")
		}
	}}
	p := s.sender(ids...)
	p.send(4)
	h.start("w1")
	dead := s.dead(2)
	s.emptied()
	if string(dead[0].Data) != "1" || string(dead[1].Data) != "2" {
		t.Errorf("dead: %q and %q", dead[0].Data, dead[1].Data)
	}
	if n, _ := h.st.count(); n != p.total()-2 {
		t.Errorf("%d frames stored, want %d", n, p.total()-2)
	}
	t.Logf("%d deaths", h.deaths.Load())
}

// The last message of an owner that died is worked soon, also when no other comes.
func TestOrphanIsWorkedSoon(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1, AckWait: time.Minute})
	st := newStore()
	taken := make(chan struct{})
	w1 := s.start("w1", &business{st: st, do: func(ctx context.Context, _ envelope.Event) error {
		close(taken)
		<-ctx.Done()
		return ctx.Err()
	}})
	p := s.sender(users(1)...)
	p.send(1)
	<-taken
	w1.Abort()
	began := time.Now()
	s.start("w2", &business{st: st})
	st.await(s, 1)
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("worked %v after the death", d)
	}
	s.emptied()
	st.check(t, 1)
}

// The frames of other lanes that are at work whenever a worker dies are innocent.
func TestBystandersOfAKillerLive(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 3})
	ids := users(3)
	var atWork atomic.Int32
	h := &herd{s: s, st: newStore(), killer: ids[0], slow: func(ev envelope.Event) {
		switch {
		case ev.User != ids[0]:
			atWork.Add(1)
			time.Sleep(800 * time.Millisecond)
			atWork.Add(-1)
		case string(ev.Data) == "2": // kill while both others are at work, if that can be had
			for end := time.Now().Add(600 * time.Millisecond); atWork.Load() < 2 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}}
	p := s.sender(ids...)
	p.send(4)
	h.start("w1")
	s.dead(1)
	s.emptied()
	if dead := s.dead(1); string(dead[0].Data) != "2" || !strings.HasSuffix(dead[0].Subject, ids[0].Token()) {
		t.Errorf("dead: %s %q", dead[0].Subject, dead[0].Data)
	}
	t.Logf("%d deaths", h.deaths.Load())
}

// A suspect is worked again and again because its acknowledgement is lost with the
// connection. Nobody died over it, so it is not dead.
func TestLostAcksDoNotMakeAMessageDead(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	taken := make(chan struct{})
	w1 := s.start("w1", &business{st: newStore(), do: func(ctx context.Context, _ envelope.Event) error {
		close(taken)
		<-ctx.Done()
		return ctx.Err()
	}})
	p := s.sender(users(1)...)
	p.send(1)
	<-taken
	w1.Abort()
	<-w1.done
	const lost = 4
	var left, tries atomic.Int32
	left.Store(lost)
	js := s.connect(s.server.URL(), nats.SetCustomDialer(forgetful{&left}))
	st := newStore()
	s.startOn(js, "w2", &business{st: st, do: func(context.Context, envelope.Event) error {
		tries.Add(1)
		return nil
	}})
	s.emptied()
	s.dead(0)
	if n := tries.Load(); n <= lost {
		t.Errorf("worked %d times, although %d acknowledgements were lost", n, lost)
	}
	st.check(t, 1)
}

// forgetful makes connections that break instead of carrying an acknowledgement, for as
// long as left is positive.
type forgetful struct{ left *atomic.Int32 }

func (f forgetful) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return breaking{c, f.left}, err
}

type breaking struct {
	net.Conn
	left *atomic.Int32
}

func (c breaking) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("$JS.ACK.")) && bytes.Contains(b, []byte("+ACK")) && c.left.Add(-1) >= 0 {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// While the store is away a message may be at work for long; kills meanwhile say nothing
// about it.
func TestKillsDuringAnOutageDoNotMakeAMessageDead(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	st := newStore()
	p := s.sender(users(1)...)
	p.send(3)
	for i := range 4 {
		began := make(chan struct{}, 1)
		w := s.start("w"+strconv.Itoa(i), &business{st: st, do: func(ctx context.Context, _ envelope.Event) error {
			select {
			case began <- struct{}{}:
			default:
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		<-began
		time.Sleep(1500 * time.Millisecond)
		w.Abort()
		<-w.done
	}
	s.start("last", &business{st: st})
	st.await(s, 3)
	s.emptied()
	s.dead(0)
	st.check(t, 3)
}
