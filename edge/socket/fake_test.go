package socket_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

// verifier takes tokens like "u1001" (an hour) or "u1001/2s", refuses "refused" and
// "expired", and cannot tell of "away".
type verifier struct{}

func (verifier) Verify(_ context.Context, token string) (auth.Identity, error) {
	switch token {
	case "refused":
		return auth.Identity{}, auth.ErrSignature
	case "expired":
		return auth.Identity{}, auth.ErrExpired
	case "away":
		return auth.Identity{}, errors.New("no keys")
	}
	life := time.Hour
	for i := range token {
		if token[i] == '/' {
			d, err := time.ParseDuration(token[i+1:])
			if err != nil {
				return auth.Identity{}, err
			}
			life, token = d, token[:i]
			break
		}
	}
	return auth.Identity{User: userid.MustParse(token), Expires: time.Now().Add(life)}, nil
}

// published is one event at the fake uplink; the test says what becomes of it.
type published struct {
	envelope.Event
	data string // copied at once: what the room does with ev.Data afterwards would show
	s    uplink.Sender
}

// up is the uplink. With auto, everything is stored at once.
type up struct {
	auto   bool
	events chan published
}

func (u *up) Publish(s uplink.Sender, ev envelope.Event) {
	u.events <- published{ev, string(ev.Data), s}
	if u.auto {
		s.PublishDone(0, nil)
	}
}

// attached is one Attach at the fake downlink.
type attached struct {
	r            downlink.Receiver
	user         userid.ID
	conn, resume string
}

// down is the downlink. With auto, everybody is attached at once.
type down struct {
	auto     bool
	attaches chan attached
	detaches chan downlink.Receiver
}

func (d *down) Attach(r downlink.Receiver, user userid.ID, conn, resume string) {
	d.attaches <- attached{r, user, conn, resume}
	if d.auto {
		r.Attached(resume != "", token(1))
	}
}

func (d *down) Detach(r downlink.Receiver, _ userid.ID) { d.detaches <- r }

func token(seq uint64) downlink.Token { return downlink.NewToken("e1", 0, seq) }

// rig is a server with its fake neighbours.
type rig struct {
	*socket.Server
	t    testing.TB
	up   *up
	down *down
	addr string
	via  string // where connections begin with a PROXY header
	reg  *prometheus.Registry
	end  chan error
	log  *logged
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text []byte
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func config() socket.Config {
	o, err := handshake.ParseOrigins([]string{"http://localhost:*"})
	if err != nil {
		panic(err)
	}
	return socket.Config{
		Edge: "edge-a", Rules: handshake.Rules{Prefix: "/ws", Origins: o}, Loops: 2,
		Times: socket.Times{Tick: 10 * time.Millisecond},
	}
}

// serve starts a server for the test. change may be nil.
func serve(t testing.TB, change func(*socket.Config, *rig)) *rig {
	t.Helper()
	r := &rig{
		t: t, reg: prometheus.NewRegistry(), end: make(chan error, 1), log: &logged{},
		up:   &up{auto: true, events: make(chan published, 1<<16)},
		down: &down{auto: true, attaches: make(chan attached, 1<<12), detaches: make(chan downlink.Receiver, 1<<12)},
	}
	cfg := config()
	if change != nil {
		change(&cfg, r)
	}
	s, err := socket.New(cfg, socket.Deps{
		Log: slog.New(slog.NewTextHandler(r.log, nil)), Registry: r.reg, Verifier: verifier{}, Uplink: r.up, Downlink: r.down,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.run(s)
	return r
}

func (r *rig) run(s *socket.Server) {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	proxied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.Server, r.addr, r.via = s, ln.Addr().String(), proxied.Addr().String()
	go func() {
		r.end <- s.Serve(socket.Listener{Listener: proxied, Proxied: true}, socket.Listener{Listener: ln})
	}()
	r.t.Cleanup(func() {
		s.Abort()
		if err := <-r.end; err != nil && !errors.Is(err, socket.ErrAborted) {
			r.t.Errorf("serve: %v", err)
		}
	})
}

// metric returns the value of a counter or gauge, or the count of a histogram, summed over its labels that match.
func (r *rig) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "wirepost_edge_"+name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for _, want := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetValue() == want
				}
				if !found {
					continue next
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// eventually polls for what no signal tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (u *up) next(t testing.TB) published {
	t.Helper()
	select {
	case p := <-u.events:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was published")
		panic("unreachable")
	}
}

func (d *down) next(t testing.TB) attached {
	t.Helper()
	select {
	case a := <-d.attaches:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was attached")
		panic("unreachable")
	}
}

// peer is a client on a raw connection, which can break every rule.
type peer struct {
	*net.TCPConn
	t testing.TB
	r io.Reader
}

// connect makes the TCP connection only.
func (r *rig) connect() *peer {
	r.t.Helper()
	return r.connectTo(r.addr)
}

func (r *rig) connectTo(addr string) *peer {
	r.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{c.(*net.TCPConn), r.t, c}
}

// open makes a WebSocket.
func (r *rig) open(path string, header ...string) *peer {
	r.t.Helper()
	p := r.connect()
	p.upgrade(path, header...)
	return p
}

// upgrade makes a WebSocket of a TCP connection.
func (p *peer) upgrade(path string, header ...string) {
	p.t.Helper()
	d := ws.Dialer{}
	if len(header) > 0 {
		h := map[string][]string{}
		for i := 0; i < len(header); i += 2 {
			h[header[i]] = append(h[header[i]], header[i+1])
		}
		d.Header = ws.HandshakeHeaderHTTP(h)
	}
	br, _, err := d.Upgrade(p.TCPConn, mustURL("ws://"+p.RemoteAddr().String()+path))
	if err != nil {
		p.t.Fatalf("handshake: %v", err)
	}
	if br != nil {
		p.r = io.MultiReader(io.LimitReader(br, int64(br.Buffered())), p.TCPConn)
	}
}

// login opens a WebSocket and logs in; the reply and the Connected event are taken.
func (r *rig) login(tok string) *peer {
	r.t.Helper()
	p := r.open("/ws")
	p.text(`{"msgType":2,"msgBody":{"token":"` + tok + `"}}`)
	p.loginReply()
	if r.up.auto {
		if ev := r.up.next(r.t); ev.Type != envelope.Connected {
			r.t.Fatalf("%s was published before %s", ev.Type, envelope.Connected)
		}
	}
	return p
}

func (p *peer) loginReply() (protocol.Message, protocol.LoginReply) {
	p.t.Helper()
	m := p.message()
	var reply protocol.LoginReply
	if err := json.Unmarshal(m.MsgBody, &reply); err != nil || m.MsgType != protocol.Login {
		p.t.Fatalf("no login reply but %+v (%v)", m, err)
	}
	return m, reply
}

func frame(op ws.OpCode, fin bool, payload string) []byte {
	f := ws.NewFrame(op, fin, []byte(payload))
	b, err := ws.CompileFrame(ws.MaskFrameInPlaceWith(f, [4]byte{1, 2, 3, 4}))
	if err != nil {
		panic(err)
	}
	return b
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

func (p *peer) text(s string) { p.t.Helper(); p.raw(frame(ws.OpText, true, s)) }

// next reads one frame.
func (p *peer) next() ws.Frame {
	p.t.Helper()
	h, err := ws.ReadHeader(p.r)
	if err != nil {
		p.t.Fatalf("read: %v", err)
	}
	if h.Masked || h.Rsv != 0 || !h.Fin {
		p.t.Fatalf("frame header %+v", h)
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(p.r, b); err != nil {
		p.t.Fatalf("read: %v", err)
	}
	return ws.Frame{Header: h, Payload: b}
}

func (p *peer) expectText(want string) {
	p.t.Helper()
	if f := p.next(); f.Header.OpCode != ws.OpText || string(f.Payload) != want {
		p.t.Fatalf("got %x %q, want text %q", f.Header.OpCode, f.Payload, want)
	}
}

func (p *peer) message() protocol.Message {
	p.t.Helper()
	f := p.next()
	var m protocol.Message
	if err := json.Unmarshal(f.Payload, &m); err != nil || f.Header.OpCode != ws.OpText {
		p.t.Fatalf("no message but %x %q", f.Header.OpCode, f.Payload)
	}
	return m
}

// expectClose reads up to the close frame, answers it, and reads to the end of the
// stream: the server must end TCP by itself, without a reset.
func (p *peer) expectClose(code int) {
	p.t.Helper()
	p.closeFrame(code)
	_, _ = p.Write(frame(ws.OpClose, true, string(ws.NewCloseFrameBody(ws.StatusCode(code), ""))))
	p.expectEnd()
}

// expectReply is expectClose where the peer has sent its close frame before.
func (p *peer) expectReply(code int) {
	p.t.Helper()
	p.closeFrame(code)
	p.expectEnd()
}

func (p *peer) closeFrame(code int) {
	p.t.Helper()
	f := p.next()
	for f.Header.OpCode != ws.OpClose {
		f = p.next()
	}
	if got, reason := ws.ParseCloseFrameData(f.Payload); int(got) != code {
		p.t.Fatalf("close %d %q, want %d", got, reason, code)
	}
}

func (p *peer) expectEnd() {
	p.t.Helper()
	if n, err := p.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		p.t.Fatalf("behind the close frame: %d bytes, %v", n, err)
	}
}

func serveEcho(t testing.TB) *rig { return serveEchoInPieces(t, nil) }

func serveEchoInPieces(t testing.TB, piece func() int) *rig {
	t.Helper()
	r := &rig{t: t, reg: prometheus.NewRegistry(), end: make(chan error, 1), log: &logged{}}
	cfg := config()
	cfg.Limits.Frame = 16 << 20
	s, err := socket.NewEchoInPieces(cfg, slog.New(slog.NewTextHandler(r.log, nil)), r.reg, piece)
	if err != nil {
		t.Fatal(err)
	}
	r.run(s)
	return r
}
