package loop_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/edge/loop"
)

func TestEchoOverManyConnections(t *testing.T) {
	e := &echo{}
	addr := start(t, e, 0)
	var wg sync.WaitGroup
	for range 50 {
		c := dial(t, addr)
		wg.Go(func() {
			for range 20 {
				roundTrip(t, c, "hello")
			}
		})
	}
	wg.Wait()
}

func TestPostKeepsTheOrderOfEachGoroutine(t *testing.T) {
	e := &echo{}
	start(t, e, 0)
	const posters, each = 4, 5000
	var seen [posters]int // owned by the loop until wg is done
	var wg, posted sync.WaitGroup
	wg.Add(posters * each)
	for p := range posters {
		posted.Go(func() {
			for i := range each {
				e.l.Post(func() {
					if seen[p] != i {
						t.Errorf("poster %d: message %d came after %d", p, i, seen[p])
					}
					seen[p]++
					wg.Done()
				})
				if i%500 == 0 {
					time.Sleep(time.Microsecond) // lets the loop fall asleep now and then
				}
			}
		})
	}
	posted.Wait()
	wg.Wait()
}

func TestPostAfterStopIsDropped(t *testing.T) {
	e := &echo{}
	l, err := loop.New(loop.Handler[func()](e), loop.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	if err := l.Run(); !errors.Is(err, loop.ErrStopped) {
		t.Fatalf("run = %v", err)
	}
	l.Post(func() { t.Error("called") })
	l.Stop()
}

func TestReleaseGivesDescriptorsBack(t *testing.T) {
	before := descriptors(t)
	for range 10 {
		l, err := loop.New(loop.Handler[func()](&echo{}), loop.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Listen(ln); err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		l.Release()
		l.Stop()
	}
	if n := descriptors(t); n > before+5 {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Two connections are readable in one turn. The handler of the first closes the second
// and accepts... a third: a socket that takes over its descriptor and its slot. What the
// poll said about the second must not reach the third.
func TestStaleEventsDoNotReachAReusedDescriptor(t *testing.T) {
	e := &echo{}
	var keys []loop.Key
	accepted := make(chan loop.Key, 3)
	e.accepted = func(k loop.Key, _ int) { keys = append(keys, k); accepted <- k }
	var third loop.Key
	done := make(chan bool, 1)
	armed := false
	e.readable = func(k loop.Key) bool {
		if !armed {
			return false
		}
		armed = false
		victim := keys[0]
		if k == victim {
			victim = keys[1]
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Error(err)
		}
		e.l.Close(victim)
		third, err = e.l.Add(fds[0])
		if err != nil {
			t.Error(err)
		}
		if third.Slot() != victim.Slot() {
			t.Errorf("slot %d was not used again, but %d", victim.Slot(), third.Slot())
		}
		inner := e.readable
		e.readable = func(k loop.Key) bool {
			if k == third {
				t.Error("the new connection got an event of the old one")
			}
			return inner(k)
		}
		e.l.Post(func() {
			if _, err := e.l.Read(victim, make([]byte, 1)); !errors.Is(err, loop.ErrStale) {
				t.Errorf("read of a stale key: %v", err)
			}
			e.l.Close(victim) // must not close the third
			if _, err := e.l.Read(third, make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("read of the new connection: %v", err)
			}
			e.readable = nil // from here on the new one has an event: the end of its stream
			_ = unix.Close(fds[1])
			done <- true
		})
		return true
	}
	addr := start(t, e, 0)
	a, b := dial(t, addr), dial(t, addr)
	<-accepted
	<-accepted
	// While the loop stands in this message both become readable, so that one poll finds both.
	stand, goOn := make(chan bool), make(chan bool)
	e.l.Post(func() { armed = true; stand <- true; <-goOn })
	<-stand
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	goOn <- true
	<-done
}

func TestHangupWhileReadingIsNotWanted(t *testing.T) {
	e := &echo{}
	accepted, gone := make(chan loop.Key, 1), make(chan loop.Key, 1)
	e.accepted = func(k loop.Key, _ int) { e.l.Want(k, false, false); accepted <- k }
	e.hangup = func(k loop.Key) { gone <- k }
	c := dial(t, start(t, e, 0))
	k := <-accepted
	_ = c.SetLinger(0)
	_ = c.Close()
	if got := <-gone; got != k {
		t.Fatalf("hangup of %x, want %x", got, k)
	}
}

func TestWritableOnlyWhileWanted(t *testing.T) {
	e := &echo{}
	accepted, writable := make(chan loop.Key, 1), make(chan bool, 1)
	e.accepted = func(k loop.Key, _ int) { accepted <- k }
	e.writable = func(k loop.Key) { e.l.Want(k, true, false); writable <- true }
	c := dial(t, start(t, e, 0))
	k := <-accepted
	roundTrip(t, c, "a")
	select {
	case <-writable:
		t.Fatal("writable although not wanted")
	default:
	}
	e.l.Post(func() { e.l.Want(k, true, true) })
	<-writable
	roundTrip(t, c, "b")
}

// An exact timer does not wait for the next Tick, which may be far.
func TestExactTimersDoNotWaitForTheTick(t *testing.T) {
	e := &echo{}
	accepted, fired := make(chan loop.Key, 1), make(chan struct{}, 1)
	e.accepted = func(k loop.Key, _ int) { accepted <- k }
	e.timeout = func(loop.Key) { fired <- struct{}{} }
	dial(t, start(t, e, time.Hour))
	k := <-accepted
	for range 3 {
		e.l.Post(func() { e.l.ArmExact(k, 30*time.Millisecond) })
		select {
		case <-fired:
		case <-time.After(10 * time.Second):
			t.Fatal("a timer waits for the tick")
		}
	}
	if n := e.ticks.Load(); n != 0 {
		t.Errorf("%d ticks in an hour of one", n)
	}
}

// A loop wakes up for each grain while there are exact timers, and for each Tick else.
func TestWakesUpForExactTimersOnly(t *testing.T) {
	const tick = 100 * time.Millisecond // five grains
	e := &echo{}
	accepted, fired := make(chan loop.Key, 1), make(chan struct{}, 1)
	e.accepted = func(k loop.Key, _ int) { accepted <- k }
	e.timeout = func(loop.Key) { fired <- struct{}{} }
	dial(t, start(t, e, tick))
	k := <-accepted
	for range 2 {
		e.l.Post(func() { e.l.ArmExact(k, 30*time.Millisecond) })
		<-fired
		e.l.Post(func() { e.l.Arm(k, time.Minute) })
		waitTicks(t, e, 2) // until the hurry is over
		before, ticks := e.turns.Load(), e.ticks.Load()
		waitTicks(t, e, 10)
		if turns, ticks := e.turns.Load()-before, e.ticks.Load()-ticks; turns > 2*ticks {
			t.Errorf("%d turns in %d ticks without a timer", turns, ticks)
		}
	}
}

func TestTimers(t *testing.T) {
	e := &echo{}
	accepted := make(chan loop.Key, 3)
	fired := make(chan loop.Key, 8)
	e.accepted = func(k loop.Key, _ int) { accepted <- k }
	e.timeout = func(k loop.Key) { fired <- k }
	addr := start(t, e, time.Millisecond)
	dial(t, addr)
	a := <-accepted
	dial(t, addr)
	b := <-accepted
	dial(t, addr)
	c := <-accepted
	begin := time.Now()
	e.l.Post(func() {
		e.l.Arm(a, time.Hour)
		e.l.Arm(a, 600*time.Millisecond) // beyond one turn of the wheel (256 ticks)
		e.l.Arm(b, 20*time.Millisecond)
		e.l.Arm(c, 10*time.Millisecond)
		e.l.Close(c)
	})
	if k := <-fired; k != b {
		t.Fatalf("first timer of %x, want %x", k, b)
	}
	if d := time.Since(begin); d < 20*time.Millisecond {
		t.Errorf("fired after %v", d)
	}
	if k := <-fired; k != a {
		t.Fatalf("second timer of %x, want %x", k, a)
	}
	if d := time.Since(begin); d < 600*time.Millisecond {
		t.Errorf("fired after %v", d)
	}
	if len(fired) != 0 {
		t.Error("a closed connection's timer fired, or one twice")
	}
}
