package wire_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/load/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// hand is a Handler of functions; what is not set does nothing.
type hand struct {
	wire.Nop
	header  func(*wire.Conn, []byte) []byte
	opened  func(*wire.Conn)
	message func(*wire.Conn, bool, []byte)
	closed  func(*wire.Conn, wire.End)
	timer   func(*wire.Conn)
	woken   func()
}

func (h *hand) Header(c *wire.Conn, b []byte) []byte {
	if h.header != nil {
		return h.header(c, b)
	}
	return b
}
func (h *hand) Opened(c *wire.Conn) {
	if h.opened != nil {
		h.opened(c)
	}
}
func (h *hand) Message(c *wire.Conn, text bool, b []byte) {
	if h.message != nil {
		h.message(c, text, b)
	}
}
func (h *hand) Closed(c *wire.Conn, e wire.End) {
	if h.closed != nil {
		h.closed(c, e)
	}
}
func (h *hand) Timer(c *wire.Conn) {
	if h.timer != nil {
		h.timer(c)
	}
}
func (h *hand) Woken() {
	if h.woken != nil {
		h.woken()
	}
}

// client runs a Client until the test's end.
func client(t *testing.T, h wire.Handler, url string, tune ...func(*wire.Options)) *wire.Client {
	t.Helper()
	to, err := wire.ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	o := wire.Options{Targets: []wire.Target{to}, Conns: 16}
	for _, f := range tune {
		f(&o)
	}
	c, err := wire.New(h, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run() }()
	t.Cleanup(func() {
		c.Stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

// dial opens connections from outside of the loop.
func dial(c *wire.Client, ids ...uint32) {
	c.Post(func() {
		for _, id := range ids {
			c.Dial(0, id)
		}
	})
}

// server gives each connection, its handshake done, to f.
func server(t *testing.T, f func(conn net.Conn, r *http.Request)) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			t.Errorf("handshake: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		_ = rw.Flush()
		f(conn, r)
	}))
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http") + "/ws?x=1"
}

// raw accepts TCP connections and gives each to f.
func raw(t *testing.T, f func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "ws://" + l.Addr().String() + "/"
}

func readFrame(conn net.Conn) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(conn); err == nil {
		f.Payload = make([]byte, f.Header.Length) // of this test's own client
		_, err = io.ReadFull(conn, f.Payload)
	}
	return f, err
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("not reached")
	}
}
