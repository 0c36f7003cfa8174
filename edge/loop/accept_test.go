package loop_test

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/edge/loop"
)

func TestAcceptedSocketsHaveNoDelay(t *testing.T) {
	e := &echo{}
	got := make(chan int, 1)
	e.accepted = func(k loop.Key, _ int) {
		v, err := e.l.NoDelay(k)
		if err != nil {
			v = -1
		}
		got <- v
	}
	dial(t, start(t, e, 0))
	if v := <-got; v != 1 {
		t.Fatalf("TCP_NODELAY = %d", v)
	}
}

func TestStopAccepting(t *testing.T) {
	e := &echo{}
	addr := start(t, e, 0)
	c := dial(t, addr)
	roundTrip(t, c, "x")
	e.l.StopAccepting()
	deadline := time.Now().Add(5 * time.Second)
	for {
		n, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		_ = n.Close()
		if time.Now().After(deadline) {
			t.Fatal("still accepting")
		}
	}
	roundTrip(t, c, "y") // those that are here stay
}

// A loop without a listener parks like any other.
func TestStopAcceptingDoesNotSpin(t *testing.T) {
	e := &echo{}
	start(t, e, 10*time.Millisecond)
	e.l.StopAccepting()
	waitTicks(t, e, 2)
	begin, used := time.Now(), cpuTime(t)
	waitTicks(t, e, 20)
	if used, all := cpuTime(t)-used, time.Since(begin); used > all/3 {
		t.Errorf("an idle loop took %v of CPU in %v", used, all)
	}
}

// waitTicks waits for n more ticks of e's loop.
func waitTicks(t *testing.T, e *echo, n int64) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for until := e.ticks.Load() + n; e.ticks.Load() < until; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no ticks")
		}
	}
}

// cpuTime returns what this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// An idle loop must not turn: neither by itself nor because of a listener that cannot
// be served for lack of descriptors.
func TestLackOfDescriptorsPausesAccepting(t *testing.T) {
	e := &echo{}
	failed := make(chan error, 64)
	e.failed = func(err error) { failed <- err }
	accepted := make(chan loop.Key, 1)
	e.accepted = func(k loop.Key, _ int) { accepted <- k }
	addr := start(t, e, 20*time.Millisecond)

	c, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3 // lower than anything that is open: accept4 gets EMFILE
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
				t.Error(err)
			}
		}
	}
	defer restore()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: c.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, unix.EMFILE) {
		t.Fatalf("accept failed with %v", err)
	}
	before, ticks := e.turns.Load(), e.ticks.Load()
	<-failed // the next try is four ticks later
	if turns, ticks := e.turns.Load()-before, e.ticks.Load()-ticks; ticks < 3 || turns > 2*ticks+4 {
		t.Errorf("%d turns in %d ticks", turns, ticks)
	}
	restore()
	<-accepted
}

// Whoever wakes first accepts, yet all loops end up with the same number.
func TestLoopsShareConnections(t *testing.T) {
	const n, each = 4, 100
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan int, n*each)
	var loops []*loop.Loop[func()]
	for i := range n {
		e := &echo{accepted: func(loop.Key, int) { accepted <- i }}
		l, err := loop.New(loop.Handler[func()](e), loop.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Listen(ln); err != nil {
			t.Fatal(err)
		}
		e.l = l
		loops = append(loops, l)
	}
	loop.Share(loops)
	_ = ln.Close()
	var run sync.WaitGroup
	for _, l := range loops {
		run.Go(func() {
			if err := l.Run(); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	var got [n]int
	for range n * each {
		roundTrip(t, dial(t, ln.Addr().String()), "x")
		got[<-accepted]++
	}
	for _, l := range loops {
		l.Stop()
	}
	run.Wait()
	for i, g := range got {
		if g < each*8/10 || g > each*12/10 {
			t.Errorf("loop %d got %d of %d", i, g, n*each)
		}
	}
}

// Each connection comes with the number of its listener, also when another loop accepted it.
func TestListenersAreTold(t *testing.T) {
	const n, each = 3, 60
	var lns [2]net.Listener
	for i := range lns {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lns[i] = ln
	}
	accepted := make(chan int, 2*each)
	var loops []*loop.Loop[func()]
	for range n {
		e := &echo{accepted: func(_ loop.Key, from int) { accepted <- from }}
		l, err := loop.New(loop.Handler[func()](e), loop.Config{Tick: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		for _, ln := range lns {
			if err := l.Listen(ln); err != nil {
				t.Fatal(err)
			}
		}
		e.l = l
		loops = append(loops, l)
	}
	loop.Share(loops)
	var run sync.WaitGroup
	for _, l := range loops {
		run.Go(func() {
			if err := l.Run(); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	for i := range 2 * each {
		roundTrip(t, dial(t, lns[i%2].Addr().String()), "x")
		if from := <-accepted; from != i%2 {
			t.Fatalf("a connection of listener %d came as one of %d", i%2, from)
		}
	}
	for _, ln := range lns {
		_ = ln.Close()
	}
	for _, l := range loops {
		l.StopAccepting()
	}
	for _, ln := range lns { // both are shut
		for deadline := time.Now().Add(5 * time.Second); ; {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				break
			}
			_ = c.Close()
			if time.Now().After(deadline) {
				t.Fatal("still accepting")
			}
		}
	}
	for _, l := range loops {
		l.Stop()
	}
	run.Wait()
}
