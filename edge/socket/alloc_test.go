package socket

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/userid"
)

// quiet is every neighbour at once: all is well, at once.
type quiet struct{}

func (quiet) Verify(context.Context, string) (auth.Identity, error) {
	return auth.Identity{User: userid.MustParse("u1"), Expires: time.Now().Add(time.Hour)}, nil
}
func (quiet) Publish(s uplink.Sender, _ envelope.Event) { s.PublishDone(0, nil) }
func (quiet) Attach(r downlink.Receiver, _ userid.ID, _, _ string) {
	r.Attached(false, downlink.NewToken("e1", 0, 1))
}
func (quiet) Detach(downlink.Receiver, userid.ID) {}

// inside is the gateway, and a way to run a test's function on a connection's loop.
type inside struct {
	*gateway
	run  chan func(*Conn)
	conn chan *Conn // that was attached
}

const mTest kind = 255

func (g *inside) posted(c *Conn, m *message) {
	if m.kind == mTest {
		(<-g.run)(c)
		return
	}
	g.gateway.posted(c, m)
	if m.kind == mAttached {
		g.conn <- c
	}
}

// onLoop runs f on the loop of a connection that is logged in and at rest, and came through
// a proxy. Its peer throws away what it gets.
func onLoop(t testing.TB, f func(*Conn)) {
	t.Helper()
	above := &inside{run: make(chan func(*Conn), 1), conn: make(chan *Conn, 1)}
	proxies, err := handshake.ParseProxies([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Edge: "edge-a", Rules: handshake.Rules{Prefix: "/ws", Proxies: proxies}, Loops: 1,
		Rates: Rates{Frames: 400_000, Bytes: MaxByteRate}} // counted, never reached
	cfg.setDefaults()
	deps := Deps{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Verifier: quiet{}, Uplink: quiet{}, Downlink: quiet{}}
	s, err := newServer(cfg, deps, func(s *Server) layer {
		s.verifiers = newPool(quiet{}, 1, time.Second)
		above.gateway = &gateway{srv: s}
		return above
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- s.Serve(Listener{Listener: ln}) }()
	defer func() { s.Abort(); <-end }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	d := ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer x"}, "X-Forwarded-For": {"203.0.113.5"}}}
	br, _, err := d.Upgrade(conn, mustURL("ws://a/ws"))
	if err != nil {
		t.Fatal(err)
	}
	var in io.Reader = conn
	if br != nil { // the login reply came with the answer
		in = io.MultiReader(io.LimitReader(br, int64(br.Buffered())), conn)
	}
	if h, err := ws.ReadHeader(in); err != nil {
		t.Fatal(err)
	} else if _, err := io.CopyN(io.Discard, in, h.Length); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	done := make(chan bool)
	above.run <- func(c *Conn) { f(c); done <- true }
	c := <-above.conn
	c.k.loop.Post(message{c: c, kind: mTest})
	<-done
}

// taken feeds a copy of stream as if it had been read, to the end of the turn.
func taken(c *Conn, stream []byte) {
	n := copy(c.k.scratch, stream)
	c.feed(c.k.scratch[:n])
	c.settle()
	c.k.TurnEnd()
}

func zeroAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	f()
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	onLoop(t, func(c *Conn) {
		zeroAllocs(t, "heartbeat", func() { taken(c, heartbeatFrame) })
		zeroAllocs(t, "heartbeat in another spelling", func() { taken(c, classicFrame) })
		zeroAllocs(t, "heartbeat byte by byte", func() {
			for i := range heartbeatFrame {
				taken(c, heartbeatFrame[i:i+1])
			}
		})
		seq := uint64(1)
		zeroAllocs(t, "heartbeat with a new position", func() {
			seq++
			c.sess.at = downlink.NewToken("e1", 0, seq)
			c.set(fMoved)
			taken(c, heartbeatFrame)
		})
		zeroAllocs(t, "ping", func() { taken(c, pingFrame) })
		data := []byte(strings.Repeat("x", 300))
		m := &message{c: c, kind: mDeliver, data: data}
		zeroAllocs(t, "delivery", func() {
			c.k.layer.posted(c, m)
			c.k.TurnEnd()
		})
		zeroAllocs(t, "a pause for its rate", func() {
			c.limit(nLimitedFrames)
			c.relieve(c.k.now())
			c.k.goOn()
		})
		if c.w != nil {
			t.Error("the connection at rest holds work")
		}
	})
	var p parser
	pool := &buffers{budget: 1 << 20}
	stream := join(masked(0x01, "ab"), masked(0x89, "p"), masked(0x80, "cd"), masked(0x81, fill(500)))
	buf := make([]byte, len(stream))
	zeroAllocs(t, "parsing, also of fragments and pieces", func() {
		copy(buf, stream)
		for i := 0; i < len(buf); {
			n, _, f := p.next(buf[i:min(i+11, len(buf))], testBounds, pool)
			if i += n; f != nil {
				t.Fatal(f)
			}
		}
		p.releaseDone(pool)
	})
}

var (
	heartbeatFrame = masked(0x81, plainHeartbeat)
	classicFrame   = masked(0x81, `{"sendUserId":"u1","receivedUserId":"","bizType":0,"bizOptModule":0,"msgBody":{"a":[1,"\""]},"msgType": 1}`)
	pingFrame      = masked(0x89, "hello")
)

// What a connection at rest is made of; the heap adds at most the next size class.
func TestConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 128 {
		t.Errorf("Conn has %d bytes", n)
	}
	if n := unsafe.Sizeof(message{}); n > 96 {
		t.Errorf("message has %d bytes", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name   string
		stream []byte
	}{
		{"text-200B", masked(0x81, fill(200))}, {"text-16KiB", masked(0x81, fill(16<<10))},
		{"fragments-4x64B", join(masked(0x01, fill(64)), masked(0x00, fill(64)), masked(0x00, fill(64)), masked(0x80, fill(64)))},
	} {
		b.Run(c.name, func(b *testing.B) {
			var p parser
			pool := &buffers{budget: 1 << 20}
			buf := make([]byte, len(c.stream))
			lim := bounds{maxMessage: 128 << 10, maxFragments: 64}
			b.SetBytes(int64(len(c.stream)))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, c.stream)
				for i := 0; i < len(buf); {
					n, _, f := p.next(buf[i:], lim, pool)
					if i += n; f != nil {
						b.Fatal(f)
					}
				}
			}
		})
	}
}

// awaitPeer holds a benchmark to what the peer takes.
func awaitPeer(b *testing.B, c *Conn) {
	for c.has(fBlocked) {
		runtime.Gosched()
		c.writable()
	}
	if c.state != stOpen {
		b.Fatalf("the connection is closed: %s", ends[c.end].name)
	}
}

// BenchmarkHeartbeat is from the bytes that were read to the answer that was written.
func BenchmarkHeartbeat(b *testing.B) {
	for _, c := range []struct {
		name   string
		stream []byte
	}{{"plain", heartbeatFrame}, {"classic", classicFrame}} {
		b.Run(c.name, func(b *testing.B) {
			onLoop(b, func(conn *Conn) {
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					taken(conn, c.stream)
					awaitPeer(b, conn)
				}
			})
		})
	}
}

// BenchmarkDeliver is from the message in the mailbox to the write, one frame a turn and
// many in one.
func BenchmarkDeliver(b *testing.B) {
	for _, c := range []struct {
		name string
		turn int
	}{{"alone", 1}, {"16-a-turn", 16}} {
		b.Run(c.name, func(b *testing.B) {
			onLoop(b, func(conn *Conn) {
				data := []byte(fill(300))
				b.ReportAllocs()
				b.ResetTimer()
				m := &message{c: conn, kind: mDeliver, data: data}
				for i := range b.N {
					conn.k.layer.posted(conn, m)
					if i%c.turn == 0 {
						conn.k.TurnEnd()
						awaitPeer(b, conn)
					}
				}
			})
		})
	}
}

// BenchmarkMsgType is the scan of a frame that is relayed.
func BenchmarkMsgType(b *testing.B) {
	first := []byte(`{"msgType":3,"bizType":1,"msgBody":"` + fill(500) + `"}`)
	last := []byte(`{"bizType":1,"msgBody":{"text":"` + fill(500) + `","list":[1,2,3]},"msgType":3}`)
	for _, c := range []struct {
		name string
		data []byte
	}{{"first", first}, {"last", last}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if msgType(c.data) != 3 {
					b.Fatal("wrong")
				}
			}
		})
	}
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}
