package wire_test

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/wirepost/wirepost/scripts/load/wire"
)

func TestEchoOfEverySize(t *testing.T) {
	url := server(t, func(conn net.Conn, _ *http.Request) {
		for {
			b, op, err := wsutil.ReadClientData(conn)
			if err != nil || wsutil.WriteServerMessage(conn, op, b) != nil {
				return
			}
		}
	})
	sizes := []int{0, 1, 125, 126, 127, 65535, 65536, 300_000}
	type got struct {
		text bool
		b    []byte
	}
	back := make(chan got, 2*len(sizes))
	h := &hand{message: func(_ *wire.Conn, text bool, b []byte) { back <- got{text, bytes.Clone(b)} }}
	h.opened = func(c *wire.Conn) {
		for _, n := range sizes {
			if c.Text(pattern(n)) != nil || c.Binary(pattern(n)) != nil {
				t.Error("not sent")
			}
		}
	}
	dial(client(t, h, url), 7)
	for _, n := range sizes {
		for _, text := range []bool{true, false} {
			if g := await(t, back); g.text != text || !bytes.Equal(g.b, pattern(n)) {
				t.Fatalf("size %d: text %v (want %v), %d bytes", n, g.text, text, len(g.b))
			}
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%23)
	}
	return b
}

func TestHandshakeCarriesHeaderPathAndHost(t *testing.T) {
	seen := make(chan *http.Request, 1)
	url := server(t, func(_ net.Conn, r *http.Request) { seen <- r })
	h := &hand{header: func(c *wire.Conn, b []byte) []byte {
		return fmt.Appendf(b, "Authorization: Bearer t%d\r\n", c.ID())
	}}
	dial(client(t, h, url), 7)
	r := await(t, seen)
	if r.Header.Get("Authorization") != "Bearer t7" || r.URL.String() != "/ws?x=1" || !strings.Contains(url, r.Host) {
		t.Errorf("Authorization %q, path %q, host %q", r.Header.Get("Authorization"), r.URL, r.Host)
	}
}

func TestPingIsAnswered(t *testing.T) {
	pong := make(chan string, 1)
	url := server(t, func(conn net.Conn, _ *http.Request) {
		_ = ws.WriteFrame(conn, ws.NewPingFrame([]byte("are you there")))
		f, err := readFrame(conn)
		if err != nil || f.Header.OpCode != ws.OpPong {
			t.Errorf("answer %v, %v", f.Header, err)
		}
		pong <- string(ws.UnmaskFrame(f).Payload)
	})
	dial(client(t, &hand{}, url), 1)
	if got := await(t, pong); got != "are you there" {
		t.Errorf("pong of %q", got)
	}
}

func TestCloseOfTheServer(t *testing.T) {
	answered := make(chan ws.StatusCode, 1)
	url := server(t, func(conn net.Conn, _ *http.Request) {
		_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(4408, "too slow")))
		f, _ := readFrame(conn)
		code, _ := ws.ParseCloseFrameData(ws.UnmaskFrame(f).Payload)
		answered <- code
	})
	ends := make(chan wire.End, 1)
	dial(client(t, &hand{closed: func(_ *wire.Conn, e wire.End) { ends <- e }}, url), 1)
	if code := await(t, answered); code != 4408 {
		t.Errorf("answered with %d", code)
	}
	if e := await(t, ends); e.Code != 4408 || e.Reason != "too slow" || e.Local || !e.Opened || e.Err != nil {
		t.Errorf("end %+v", e)
	}
}

func TestCloseByThisSide(t *testing.T) {
	url := server(t, func(conn net.Conn, _ *http.Request) {
		_ = ws.WriteFrame(conn, ws.NewTextFrame([]byte("before")))
		f, err := readFrame(conn)
		if err != nil || f.Header.OpCode != ws.OpClose {
			t.Errorf("got %v, %v", f.Header, err)
		}
		_ = ws.WriteFrame(conn, ws.NewTextFrame([]byte("too late")))
		_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.UnmaskFrame(f).Payload))
	})
	ends := make(chan wire.End, 1)
	h := &hand{closed: func(_ *wire.Conn, e wire.End) { ends <- e }}
	h.message = func(c *wire.Conn, _ bool, b []byte) {
		if string(b) != "before" {
			t.Errorf("%q came after the close", b)
		}
		c.Close(1000)
		if err := c.Text(nil); !errors.Is(err, wire.ErrNotOpen) {
			t.Errorf("text after close: %v", err)
		}
	}
	dial(client(t, h, url), 1)
	if e := await(t, ends); e.Code != 1000 || !e.Local || e.Err != nil {
		t.Errorf("end %+v", e)
	}
}

func TestCloseThatIsNotAnsweredEnds(t *testing.T) {
	over := make(chan bool)
	url := server(t, func(conn net.Conn, _ *http.Request) { <-over })
	ends := make(chan wire.End, 1)
	h := &hand{opened: func(c *wire.Conn) { c.Close(1001) }, closed: func(_ *wire.Conn, e wire.End) { ends <- e }}
	dial(client(t, h, url), 1)
	if e := await(t, ends); e.Code != 1006 || !e.Local {
		t.Errorf("end %+v", e)
	}
	close(over)
}

// What the server may answer instead of opening a WebSocket.
func TestHandshakeThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		status int
		after  time.Duration
		is     error
	}{
		"overload":     {"HTTP/1.1 503 Service Unavailable\r\nretry-After: 7\r\n\r\nbusy", 503, 7 * time.Second, wire.ErrHandshake},
		"wrong accept": {"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 101, 0, wire.ErrHandshake},
		"no HTTP":      {"SSH-2.0-OpenSSH\r\n\r\n", 0, 0, wire.ErrHandshake},
		"endless":      {strings.Repeat("x", 20<<10), 0, 0, wire.ErrHandshake},
		"end":          {"HTTP/1.1 101", 0, 0, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, func(conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(conn, c.answer)
			})
			ends := make(chan wire.End, 1)
			dial(client(t, &hand{closed: func(_ *wire.Conn, e wire.End) { ends <- e }}, url), 1)
			e := await(t, ends)
			if e.Status != c.status || e.RetryAfter != c.after || !errors.Is(e.Err, c.is) || e.Opened || e.Code != 1006 {
				t.Errorf("end %+v", e)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	ends := make(chan wire.End, 1)
	c := client(t, &hand{closed: func(_ *wire.Conn, e wire.End) { ends <- e }}, "ws://"+l.Addr().String()+"/")
	dial(c, 1)
	if e := await(t, ends); e.Err == nil || e.Opened || e.Code != 1006 {
		t.Errorf("end %+v", e)
	}
}

func TestServerThatNeverAnswersIsGivenUp(t *testing.T) {
	over := make(chan bool)
	url := raw(t, func(net.Conn) { <-over })
	ends := make(chan wire.End, 1)
	c := client(t, &hand{closed: func(_ *wire.Conn, e wire.End) { ends <- e }}, url,
		func(o *wire.Options) { o.OpenTimeout = 50 * time.Millisecond })
	dial(c, 1)
	if e := await(t, ends); e.Err == nil || e.Opened {
		t.Errorf("end %+v", e)
	}
	close(over)
}

// A schedule is kept whatever the server does: the wait of a connection that the cap
// holds up counts from when it was due.
func TestRateIsAScheduleAndInFlightACap(t *testing.T) {
	var now, most atomic.Int32
	goOn := make(chan bool)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-goOn
		now.Add(-1)
		if conn, _, _, err := ws.UpgradeHTTP(r, w); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}))
	defer srv.Close()
	type open struct{ begun, at time.Duration }
	opened := make(chan open, 8)
	h := &hand{opened: func(c *wire.Conn) { opened <- open{c.Begun(), c.Client().Now()} }}
	c := client(t, h, "ws"+strings.TrimPrefix(srv.URL, "http"), func(o *wire.Options) { o.Rate, o.InFlight = 100, 2 })
	dial(c, 0, 1, 2, 3, 4, 5, 6, 7)
	counts := make(chan wire.Counts)
	for { // until all of them are due and two are in flight
		c.Post(func() { counts <- c.Counts() })
		if n := <-counts; n.Opening == 2 && now.Load() == 2 {
			break
		}
	}
	time.Sleep(100 * time.Millisecond) // the others become due meanwhile
	close(goOn)
	var all []open
	for range 8 {
		all = append(all, await(t, opened))
	}
	slices.SortFunc(all, func(a, b open) int { return cmp.Compare(a.begun, b.begun) })
	if most.Load() != 2 {
		t.Errorf("%d handshakes at once, want 2", most.Load())
	}
	for i := 1; i < len(all); i++ {
		if d := all[i].begun - all[i-1].begun; d != 10*time.Millisecond {
			t.Errorf("connection %d was due %v after the one before, want 10 ms", i, d)
		}
	}
	if wait := all[2].at - all[2].begun; wait < 50*time.Millisecond {
		t.Errorf("the cap held up the third connection, but its wait is %v", wait)
	}
}

func TestConnectionsComeFromManyAddresses(t *testing.T) {
	from := make(chan string, 16)
	url := server(t, func(conn net.Conn, _ *http.Request) { from <- conn.RemoteAddr().String() })
	dial(client(t, &hand{}, url), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	seen := map[netip.Addr]bool{}
	for range 10 {
		a := netip.MustParseAddrPort(await(t, from)).Addr()
		if seen[a] || !netip.MustParsePrefix("127.1.0.0/16").Contains(a) {
			t.Errorf("source %v", a)
		}
		seen[a] = true
	}
}

// A slot is used again; neither the old connection's events nor its id reach the new one.
func TestSlotsAreUsedAgain(t *testing.T) {
	url := server(t, func(conn net.Conn, _ *http.Request) {
		_ = ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(1001, "")))
		_, _ = readFrame(conn)
	})
	const n = 200
	var want uint32
	done := make(chan bool)
	h := &hand{closed: func(c *wire.Conn, e wire.End) {
		if c.ID() != want || e.Code != 1001 {
			t.Errorf("connection %d ended with %+v, want %d", c.ID(), e, want)
		}
		if want++; want == n {
			close(done)
		}
	}}
	c := client(t, h, url, func(o *wire.Options) { o.Conns = 1 })
	for i := range uint32(n) {
		dial(c, i)
	}
	await(t, done)
}

func TestServerThatDoesNotRead(t *testing.T) {
	goOn, read := make(chan bool), make(chan int, 1)
	url := server(t, func(conn net.Conn, _ *http.Request) {
		<-goOn
		n := 0
		for n < 100 {
			if b, _, err := wsutil.ReadClientData(conn); err != nil || len(b) != 100_000 {
				t.Errorf("message %d: %d bytes, %v", n, len(b), err)
				break
			}
			n++
		}
		read <- n
	})
	full := make(chan bool, 1)
	h := &hand{}
	left := 100
	h.opened = func(c *wire.Conn) {
		for ; left > 0; left-- {
			if err := c.Text(pattern(100_000)); errors.Is(err, wire.ErrFull) {
				if c.Unsent() == 0 {
					t.Error("full, and nothing waits")
				}
				full <- true
				c.Arm(0)
				return
			}
		}
	}
	h.timer = func(c *wire.Conn) {
		for ; left > 0 && c.Text(pattern(100_000)) == nil; left-- {
		}
		c.Arm(0)
	}
	dial(client(t, h, url), 1)
	await(t, full)
	close(goOn)
	if n := await(t, read); n != 100 {
		t.Errorf("the server read %d messages", n)
	}
}

func TestAbortIsSilentAndResets(t *testing.T) {
	reset := make(chan error, 1)
	url := server(t, func(conn net.Conn, _ *http.Request) {
		_, err := conn.Read(make([]byte, 1))
		reset <- err
	})
	counts := make(chan wire.Counts, 1)
	h := &hand{closed: func(*wire.Conn, wire.End) { t.Error("Closed was called") }}
	h.opened = func(c *wire.Conn) { c.Abort(); c.Abort(); counts <- c.Client().Counts() }
	dial(client(t, h, url), 1)
	if err := await(t, reset); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the server saw %v, want a reset", err)
	}
	if n := await(t, counts); n != (wire.Counts{}) {
		t.Errorf("counts %+v", n)
	}
}

func TestTimers(t *testing.T) {
	over := make(chan bool)
	url := server(t, func(net.Conn, *http.Request) { <-over })
	type fired struct {
		id uint32
		at time.Duration
	}
	fires := make(chan fired, 8)
	h := &hand{timer: func(c *wire.Conn) { fires <- fired{c.ID(), c.Client().Now()} }}
	var opened int
	var begun time.Duration
	h.opened = func(c *wire.Conn) {
		c.Arm(time.Hour)
		c.Arm(time.Duration(3-c.ID()) * 600 * time.Millisecond) // 1: 1.2 s, 2: 0.6 s
		if c.ID() == 0 {
			c.Disarm()
		}
		if opened++; opened == 3 {
			begun = c.Client().Now()
		}
	}
	dial(client(t, h, url), 0, 1, 2)
	second, first := await(t, fires), await(t, fires)
	if second.id != 2 || first.id != 1 {
		t.Errorf("fired %d, then %d", second.id, first.id)
	}
	if d := second.at - begun; d < 500*time.Millisecond {
		t.Errorf("0.6 s were over after %v", d)
	}
	if len(fires) > 0 {
		t.Error("a timer fired that was taken away, or twice")
	}
	close(over)
}

func TestWakeAt(t *testing.T) {
	late := make(chan time.Duration, 1)
	h := &hand{}
	c := client(t, h, "ws://127.0.0.1:1/")
	c.Post(func() {
		want := c.Now() + 30*time.Millisecond
		h.woken = func() { late <- c.Now() - want }
		c.WakeAt(want)
	})
	if d := await(t, late); d < 0 {
		t.Errorf("woken %v early", -d)
	}
}

func TestTargets(t *testing.T) {
	for raw, want := range map[string]error{
		"wss://127.0.0.1/ws": wire.ErrTLS, "http://127.0.0.1": wire.ErrTarget, "127.0.0.1:80": wire.ErrTarget,
		"ws://": wire.ErrTarget, "ws://u:p@127.0.0.1/": wire.ErrTarget, "ws://127.0.0.1:8081/ws": nil, "ws://[::1]": nil,
	} {
		if _, err := wire.ParseTarget(raw); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", raw, err, want)
		}
	}
}
