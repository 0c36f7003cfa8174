package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/shared/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a gateway played by the test: it takes connections over net.Pipe, so that
// everything runs in a synctest bubble with its own clock.
type gate struct {
	t     *testing.T
	conns chan *peer
	urls  chan string // address of each dial
	deny  chan []byte // whole HTTP responses: the handshakes' answers while there are any
}

// peer is the gateway's end of one connection.
type peer struct {
	t      *testing.T
	nc     net.Conn
	header http.Header
	frames chan ws.Frame // closed at the end
}

func (g *gate) dial(_ context.Context, _, addr string) (net.Conn, error) {
	near, far := net.Pipe()
	g.urls <- addr
	go g.serve(far)
	return near, nil
}

func (g *gate) serve(nc net.Conn) {
	select {
	case answer := <-g.deny:
		buf := make([]byte, 4096)
		_, _ = nc.Read(buf)
		_, _ = nc.Write(answer)
		_ = nc.Close()
		return
	default:
	}
	p := &peer{t: g.t, nc: nc, header: http.Header{}, frames: make(chan ws.Frame, 10_000)}
	defer close(p.frames)
	up := ws.Upgrader{Protocol: func(b []byte) bool { return string(b) == protocol.Subprotocol },
		OnHeader: func(k, v []byte) error { p.header.Add(string(k), string(v)); return nil }}
	if _, err := up.Upgrade(nc); err != nil {
		return
	}
	g.conns <- p
	for {
		h, err := ws.ReadHeader(nc)
		if err != nil {
			return
		}
		f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
		if _, err := io.ReadFull(nc, f.Payload); err != nil {
			return
		}
		p.frames <- ws.UnmaskFrameInPlace(f)
	}
}

// next is the next connection.
func (g *gate) next() *peer {
	g.t.Helper()
	select {
	case p := <-g.conns:
		return p
	case <-time.After(5 * time.Minute):
		g.t.Fatal("no connection came")
		return nil
	}
}

// login is the next connection, logged in.
func (g *gate) login(resumed bool, token string) (*peer, protocol.LoginRequest) {
	g.t.Helper()
	p := g.next()
	req := p.loginFrame()
	p.welcome(resumed, token)
	return p, req
}

func (p *peer) loginFrame() protocol.LoginRequest {
	p.t.Helper()
	m, _ := p.recv()
	if m.MsgType != protocol.Login {
		p.t.Fatalf("first frame is %+v, want a login", m)
	}
	var req protocol.LoginRequest
	p.decode(m.MsgBody, &req)
	return req
}

func (p *peer) welcome(resumed bool, token string) {
	p.send(protocol.Message{MsgType: protocol.Login, Resume: token, MsgBody: mustJSON(protocol.LoginReply{
		ConnID: "e1-1", Edge: "e1", UserID: "me", HeartbeatMs: 25_000, MaxFrame: protocol.MaxFrame, Resumed: resumed})})
}

// recvFrame is the next frame of the client, heartbeats too; ok is false at the end.
func (p *peer) recvFrame() (f ws.Frame, ok bool) {
	select {
	case f, ok = <-p.frames:
	case <-time.After(5 * time.Minute):
		p.t.Error("no frame came")
	}
	return f, ok
}

// recv is the client's next message that is no heartbeat, and its bytes.
func (p *peer) recv() (protocol.Message, string) {
	p.t.Helper()
	for {
		f, ok := p.recvFrame()
		if !ok || f.Header.OpCode != ws.OpText {
			p.t.Fatalf("want a text frame, got %v %q, open %v", f.Header.OpCode, f.Payload, ok)
		}
		var m protocol.Message
		p.decode(f.Payload, &m)
		if m.MsgType != protocol.Heartbeat {
			return m, string(f.Payload)
		}
	}
}

// recvClose reads up to the client's close frame and returns its code; 0 is a cut.
func (p *peer) recvClose() int {
	for {
		f, ok := p.recvFrame()
		if !ok {
			return 0
		}
		if f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return int(code)
		}
	}
}

// query is the client's next message, which must be a query; its body goes into body.
func (p *peer) query(op int, body any) protocol.Message {
	p.t.Helper()
	m, _ := p.recv()
	if m.BizType != protocol.BizQuery || m.BizOptModule != op || m.ReqID == "" {
		p.t.Fatalf("got %+v, want query %d", m, op)
	}
	p.decode(m.MsgBody, body)
	return m
}

func (p *peer) reply(q protocol.Message, body any) {
	p.send(protocol.Message{MsgType: protocol.Business, BizType: q.BizType, BizOptModule: q.BizOptModule, ReqID: q.ReqID, MsgBody: mustJSON(body)})
}

// noConversations answers a fresh client's baseline.
func (p *peer) noConversations() {
	p.t.Helper()
	p.reply(p.query(protocol.OpConversations, &protocol.ConversationsRequest{}), protocol.ConversationsReply{})
}

func (p *peer) send(m protocol.Message) {
	p.t.Helper()
	_ = p.nc.SetWriteDeadline(time.Now().Add(10 * time.Minute))
	if err := ws.WriteFrame(p.nc, ws.NewTextFrame(m.Append(nil))); err != nil {
		p.t.Errorf("gateway write: %v", err)
	}
}

func (p *peer) close(code int) {
	_ = ws.WriteFrame(p.nc, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), "test")))
	_ = p.nc.Close()
}

func (p *peer) decode(b []byte, into any) {
	p.t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		p.t.Fatalf("client sent %q: %v", b, err)
	}
}

// chat is a stored message of conversation conv.
func chat(conv string, seq int64) protocol.Message {
	return protocol.Message{MsgType: protocol.Business, BizType: protocol.BizChat, BizOptModule: protocol.OpSend,
		SendUserID: "peer", ReceivedUserID: "me", ConvID: conv, Seq: seq, TS: 1, ClientMsgID: fmt.Sprintf("%s-%d", conv, seq),
		MsgBody: json.RawMessage(fmt.Sprintf(`"%s/%d"`, conv, seq))}
}

// echo is the stored form of an own send.
func echo(sent protocol.Message, conv string, seq int64) protocol.Message {
	sent.SendUserID, sent.ConvID, sent.Seq, sent.TS = "me", conv, seq, 1
	return sent
}

func resumeTo(m protocol.Message, token string) protocol.Message { m.Resume = token; return m }

// rig is a running client and its gateway, in a bubble.
type rig struct {
	*testing.T
	g      *gate
	c      *Client
	stop   func() error // ends Run and returns what it returned; may be called twice
	tokens int          // calls of Options.Token; read when the client is at rest
}

// start runs body with a client made of o, inside a synctest bubble.
func start(t *testing.T, o Options, body func(r *rig)) {
	t.Helper()
	startDenied(t, nil, o, body)
}

// startDenied is start with a gateway that answers the first handshake with denied.
func startDenied(t *testing.T, denied []byte, o Options, body func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, g: &gate{t: t, conns: make(chan *peer, 100), urls: make(chan string, 10_000)}}
		if denied != nil {
			r.g.deny = make(chan []byte, 1)
			r.g.deny <- denied
		}
		if o.Token == nil {
			o.Token = func(context.Context) (string, error) { r.tokens++; return fmt.Sprintf("token-%d", r.tokens), nil }
		}
		if o.URLs == nil {
			o.URLs = []string{"ws://gate:1/ws"}
		}
		o.NetDial = r.g.dial
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r.c = c
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- c.Run(ctx) }()
		var once error
		ended := false
		r.stop = func() error {
			if !ended {
				cancel()
				once, ended = <-ran, true
			}
			return once
		}
		defer r.stop()
		body(r)
	})
}

// event is the next event, which must be a T.
func event[T Event](r *rig) T {
	r.Helper()
	ev, open := anyEvent(r)
	got, ok := ev.(T)
	if !ok {
		r.Fatalf("got event %T %+v (channel open: %v), want %T", ev, ev, open, got)
	}
	return got
}

func anyEvent(r *rig) (Event, bool) {
	r.Helper()
	select {
	case ev, open := <-r.c.Events():
		return ev, open
	case <-time.After(10 * time.Minute):
		r.Fatal("no event came")
		return nil, false
	}
}

// quiet checks that no event comes within d.
func quiet(r *rig, d time.Duration) {
	r.Helper()
	select {
	case ev := <-r.c.Events():
		r.Fatalf("unexpected event %T %+v", ev, ev)
	case <-time.After(d):
	}
}

// messages checks the next events to be exactly these messages ("conv/seq").
func messages(r *rig, want ...string) {
	r.Helper()
	for _, w := range want {
		m := event[Message](r)
		if got := fmt.Sprintf("%s/%d", m.ConvID, m.Seq); got != w {
			r.Fatalf("got message %s, want %s", got, w)
		}
	}
}

// ready brings a fresh client to work: logged in, with no conversation.
func ready(r *rig) *peer {
	r.Helper()
	p, _ := r.g.login(false, "t0")
	p.noConversations()
	event[Connected](r)
	event[Synced](r)
	return p
}

func send(r *rig, to string, body any, opts ...SendOption) *Pending {
	r.Helper()
	p, err := r.c.Send(context.Background(), to, body, opts...)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func resolved(r *rig, p *Pending) (Result, error) {
	r.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Minute):
		r.Fatal("send was not resolved")
	}
	return p.Result()
}
