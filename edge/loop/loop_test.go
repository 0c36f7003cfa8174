package loop_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/edge/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo sends back what it reads; its hooks let a test look in. Fields are set before
// Run or used on the loop's goroutine.
type echo struct {
	l        *loop.Loop[func()]
	buf      [64 << 10]byte
	accepted func(loop.Key)
	readable func(loop.Key) bool // true: handled
	hangup   func(loop.Key)
	writable func(loop.Key)
	timeout  func(loop.Key)
	failed   func(error)
	ticks    atomic.Int64
	turns    atomic.Int64
}

func (e *echo) Accept(k loop.Key) {
	if e.accepted != nil {
		e.accepted(k)
	}
}

func (e *echo) Readable(k loop.Key) {
	if e.readable != nil && e.readable(k) {
		return
	}
	n, err := e.l.Read(k, e.buf[:])
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	if err != nil || n == 0 {
		e.l.Close(k)
		return
	}
	_, _ = e.l.Write(k, e.buf[:n])
}

func (e *echo) Hangup(k loop.Key) {
	if e.hangup != nil {
		e.hangup(k)
	}
	e.l.Close(k)
}

func (e *echo) Writable(k loop.Key) {
	if e.writable != nil {
		e.writable(k)
	}
}

func (e *echo) Timeout(k loop.Key) {
	if e.timeout != nil {
		e.timeout(k)
	}
}
func (e *echo) Message(f func()) { f() }
func (e *echo) Tick()            { e.ticks.Add(1) }
func (e *echo) TurnEnd()         { e.turns.Add(1) }
func (e *echo) AcceptFailed(r error) {
	if e.failed != nil {
		e.failed(r)
	}
}

// start runs a loop with a listener until the test ends and returns its address.
func start(t testing.TB, e *echo, tick time.Duration) string {
	t.Helper()
	l, err := loop.New(loop.Handler[func()](e), loop.Config{Tick: tick})
	if err != nil {
		t.Fatal(err)
	}
	e.l = l
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(ln); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return ln.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

func roundTrip(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	if string(b) != s {
		t.Fatalf("got %q, want %q", b, s)
	}
}

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

func TestAcceptedSocketsHaveNoDelay(t *testing.T) {
	e := &echo{}
	got := make(chan int, 1)
	e.accepted = func(k loop.Key) {
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
	e.accepted = func(k loop.Key) { keys = append(keys, k); accepted <- k }
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
	e.accepted = func(k loop.Key) { e.l.Want(k, false, false); accepted <- k }
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
	e.accepted = func(k loop.Key) { accepted <- k }
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

func TestTimers(t *testing.T) {
	e := &echo{}
	accepted := make(chan loop.Key, 3)
	fired := make(chan loop.Key, 8)
	e.accepted = func(k loop.Key) { accepted <- k }
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
	e.accepted = func(k loop.Key) { accepted <- k }
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
		e := &echo{accepted: func(loop.Key) { accepted <- i }}
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
