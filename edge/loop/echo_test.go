package loop_test

import (
	"errors"
	"io"
	"net"
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
	accepted func(k loop.Key, from int)
	readable func(loop.Key) bool // true: handled
	hangup   func(loop.Key)
	writable func(loop.Key)
	timeout  func(loop.Key)
	failed   func(error)
	ticks    atomic.Int64
	turns    atomic.Int64
}

func (e *echo) Accept(k loop.Key, from int) {
	if e.accepted != nil {
		e.accepted(k, from)
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
