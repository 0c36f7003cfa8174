package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/protocol"
)

func TestCloseCodes(t *testing.T) {
	for _, tc := range []struct {
		code            int
		again, newToken bool
	}{
		{1000, true, false}, {1001, true, false}, {1011, true, false}, {1012, true, false}, {1013, true, false},
		{protocol.CloseDrain, true, false}, {protocol.CloseUplinkStalled, true, false}, {protocol.CloseNotAttached, true, false},
		{protocol.ClosePingTimeout, true, false}, {protocol.CloseSlowReader, true, false}, {protocol.CloseLoginTimeout, true, false},
		{protocol.CloseTooMany, true, false}, {4333, true, false}, {3999, true, false},
		{protocol.CloseTokenExpired, true, true},
		{1002, false, false}, {1003, false, false}, {1007, false, false},
		{protocol.CloseTokenRefused, false, false}, {protocol.CloseNotLogin, false, false}, {4777, false, false},
	} {
		t.Run(fmt.Sprint(tc.code), func(t *testing.T) {
			start(t, Options{}, func(r *rig) {
				p := ready(r)
				own := send(r, "peer", 1)
				p.recv()
				p.close(tc.code)
				d := event[Disconnected](r)
				var closed *ClosedError
				if d.Code != tc.code || !errors.As(d.Err, &closed) || d.Final == tc.again {
					t.Fatalf("disconnected %+v, want again=%v", d, tc.again)
				}
				if !tc.again {
					if _, err := resolved(r, own); !errors.Is(err, ErrClosed) {
						t.Errorf("send: %v", err)
					}
					if ev, open := anyEvent(r); open {
						t.Errorf("event %+v after the end", ev)
					}
					if err := r.stop(); !errors.As(err, &closed) {
						t.Errorf("Run: %v", err)
					}
					if st := r.c.State(); len(st.Outbox) != 1 {
						t.Errorf("final state %+v", st)
					}
					return
				}
				_, req := r.g.login(true, "")
				want := "token-1"
				if tc.newToken {
					want = "token-2"
				}
				if req.Token != want {
					t.Errorf("token %s, want %s", req.Token, want)
				}
				event[Connected](r)
			})
		})
	}
}

func TestBackoffGrowsWithJitter(t *testing.T) {
	start(t, Options{MaxBackoff: 4 * time.Second}, func(r *rig) {
		var longest time.Duration
		last := time.Now()
		for i := range 60 {
			p := r.g.next()
			wait := time.Since(last)
			if most := min(firstBackoff<<min(max(i-1, 0), 10), 4*time.Second); i > 0 && wait >= most {
				t.Errorf("attempt %d after %v, want less than %v", i, wait, most)
			}
			longest = max(longest, wait)
			_ = p.nc.Close()
			if d := event[Disconnected](r); d.Code != closeAbnormal || d.Final {
				t.Fatalf("disconnected %+v", d)
			}
			last = time.Now()
		}
		if longest < time.Second {
			t.Errorf("longest wait %v: no backoff", longest)
		}
		ready(r)
	})
}

func TestURLsTakeTurns(t *testing.T) {
	start(t, Options{URLs: []string{"ws://a:1/ws", "ws://b:1/ws"}}, func(r *rig) {
		p := ready(r)
		p.close(1001)
		event[Disconnected](r)
		r.g.login(true, "")
		event[Connected](r)
		if first, second := <-r.g.urls, <-r.g.urls; first == second {
			t.Errorf("%s twice", first)
		}
	})
}

func TestOverloadedGateway(t *testing.T) {
	denied := []byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n")
	startDenied(t, denied, Options{}, func(r *rig) {
		d := event[Disconnected](r)
		var status ws.StatusError
		if !errors.As(d.Err, &status) || status != 503 || d.Final {
			t.Fatalf("disconnected %+v", d)
		}
		began := time.Now()
		ready(r)
		if d := time.Since(began); d < 20*time.Second || d > 21*time.Second {
			t.Errorf("came back after %v, want 20 s", d)
		}
	})
}

func TestDrainAdvice(t *testing.T) {
	start(t, Options{URLs: []string{"ws://a:1/ws", "ws://b:1/ws"}}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", 1)
		_, raw := p.recv()
		began := time.Now()
		p.send(protocol.Message{MsgType: protocol.Notice, Code: protocol.NoticeDrain, RetryAfterMs: 8000})
		if n := event[Notice](r); n.RetryAfter != 8*time.Second {
			t.Errorf("notice %+v", n)
		}
		p.send(protocol.Message{MsgType: protocol.Notice, Code: protocol.NoticeDrain, RetryAfterMs: 8000})
		event[Notice](r)
		if code := p.recvClose(); code != closeNormal {
			t.Errorf("closed with %d, want 1000", code)
		}
		if d := time.Since(began); d >= 8*time.Second {
			t.Errorf("left after %v, want less than 8 s", d)
		}
		left := time.Now()
		if d := event[Disconnected](r); d.Code != protocol.CloseDrain || d.Final {
			t.Errorf("disconnected %+v", d)
		}
		p, _ = r.g.login(true, "")
		if d := time.Since(left); d > time.Millisecond {
			t.Errorf("connected again after %v, want at once", d)
		}
		event[Connected](r)
		m, again := p.recv()
		if again != raw {
			t.Errorf("replayed %s, want %s", again, raw)
		}
		p.send(echo(m, "a", 1))
		if _, err := resolved(r, own); err != nil {
			t.Error(err)
		}
	})
}

func TestTokenIsRefreshedOnTheLiveConnection(t *testing.T) {
	fail := true
	n := 0
	o := Options{Token: func(context.Context) (string, error) {
		n++
		if n == 2 && fail {
			return "", errors.New("issuer is away")
		}
		return fmt.Sprint("token-", n), nil
	}}
	start(t, o, func(r *rig) {
		p := ready(r)
		p.send(protocol.Message{MsgType: protocol.Notice, Code: protocol.NoticeTokenExpiry, RetryAfterMs: 60_000})
		event[Notice](r)
		m, _ := p.recv() // behind one failure
		var req protocol.LoginRequest
		p.decode(m.MsgBody, &req)
		if m.MsgType != protocol.Login || req.Token != "token-3" || req.Resume != "" {
			t.Errorf("got %+v %+v, want a login with token-3", m, req)
		}
		p.welcome(true, "t9") // the reply brings a token, and changes nothing else
		p.send(chat("a", 1))
		messages(r, "a/1")
		p.close(1001)
		event[Disconnected](r)
		if _, req = r.g.login(true, ""); req.Token != "token-3" || req.Resume != "t9" {
			t.Errorf("next login %+v", req)
		}
		event[Connected](r)
	})
}

func TestTokenThatCannotBeHad(t *testing.T) {
	n := 0
	o := Options{Token: func(context.Context) (string, error) {
		if n++; n < 3 {
			return "", errors.New("issuer is away")
		}
		return "token", nil
	}}
	start(t, o, func(r *rig) {
		event[Disconnected](r)
		event[Disconnected](r)
		ready(r)
	})
}

func TestHeartbeatAndDeadPeer(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		began := time.Now()
		for i := range 3 {
			f, _ := p.recvFrame()
			if string(f.Payload) != `{"msgType":1}` {
				t.Fatalf("got %s", f.Payload)
			}
			if d := time.Since(began); d != time.Duration(i+1)*25*time.Second {
				t.Errorf("heartbeat %d after %v", i, d)
			}
			p.send(protocol.Message{MsgType: protocol.Heartbeat, Resume: fmt.Sprint("h", i)})
		}
		synctest.Wait() // the last answer is on its way through the client
		if tok := r.c.State().Resume; tok != "h2" {
			t.Errorf("token %q, want that of the last answer", tok)
		}
		quiet(r, 62*time.Second) // silence, but not yet 2.5 intervals of it
		d := event[Disconnected](r)
		if !errors.Is(d.Err, errDeadPeer) || d.Final {
			t.Errorf("disconnected %+v", d)
		}
		if d := time.Since(began); d > 75*time.Second+75*time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestPingsAreAnswered(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		// A ping between the fragments of a message.
		_ = ws.WriteFrame(p.nc, ws.NewFrame(ws.OpText, false, []byte(`{"msgType":4,`)))
		_ = ws.WriteFrame(p.nc, ws.NewPingFrame([]byte("still there?")))
		f, _ := p.recvFrame()
		if f.Header.OpCode != ws.OpPong || string(f.Payload) != "still there?" {
			t.Errorf("got %v %q", f.Header.OpCode, f.Payload)
		}
		_ = ws.WriteFrame(p.nc, ws.NewFrame(ws.OpContinuation, true, []byte(`"code":3777}`)))
		if n := event[Notice](r); n.Code != 3777 {
			t.Errorf("notice %+v", n)
		}
	})
}

func TestGatewayThatBreaksTheProtocol(t *testing.T) {
	masked := ws.MaskFrame(ws.NewTextFrame([]byte(`{}`)))
	for name, f := range map[string]ws.Frame{
		"masked":           masked,
		"binary":           ws.NewBinaryFrame([]byte(`{}`)),
		"continuation":     ws.NewFrame(ws.OpContinuation, true, nil),
		"reserved bits":    {Header: ws.Header{Fin: true, OpCode: ws.OpText, Rsv: 4, Length: 2}, Payload: []byte(`{}`)},
		"invalid UTF-8":    ws.NewTextFrame([]byte("{\"\xff\":1}")),
		"fragmented ping":  ws.NewFrame(ws.OpPing, false, nil),
		"reserved opcode":  ws.NewFrame(ws.OpCode(0xb), true, nil),
		"larger than 1 MB": ws.NewTextFrame(make([]byte, maxMessage+1)),
	} {
		t.Run(name, func(t *testing.T) {
			start(t, Options{}, func(r *rig) {
				p := ready(r)
				go func() { _ = ws.WriteFrame(p.nc, f) }()
				if d := event[Disconnected](r); d.Code != closeAbnormal || d.Final {
					t.Errorf("disconnected %+v", d)
				}
				r.g.login(true, "")
			})
		})
	}
}

// What a later version of the gateway may say is ignored.
func TestUnknownIsIgnored(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		for _, s := range []string{`{"msgType":77}`, `[1]`, `{"msgType":3,"bizType":44,"new":{}}`, `{"msgType":3,"bizType":2,"reqId":"not mine"}`} {
			_ = ws.WriteFrame(p.nc, ws.NewTextFrame([]byte(s)))
		}
		p.send(chat("a", 1))
		messages(r, "a/1")
	})
}

func TestNoLoginReply(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := r.g.next()
		p.loginFrame()
		p.send(chat("a", 1)) // before the login reply: out of place
		if d := event[Disconnected](r); !errors.Is(d.Err, errLoginTimeout) {
			t.Errorf("disconnected %+v", d)
		}
		ready(r)
	})
}

func TestBearerLogin(t *testing.T) {
	start(t, Options{BearerLogin: true, Header: map[string][]string{"Origin": {"http://here"}}}, func(r *rig) {
		p := r.g.next()
		if a, o := p.header.Get("Authorization"), p.header.Get("Origin"); a != "Bearer token-1" || o != "http://here" {
			t.Errorf("handshake with %q, %q", a, o)
		}
		p.welcome(false, "t0")
		event[Connected](r)
		p.noConversations()
		event[Synced](r)
	})
}

// Run's end closes the connection with 1000 and leaves nothing behind.
func TestEndOfRun(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if code := p.recvClose(); code != closeNormal {
			t.Errorf("closed with %d, want 1000", code)
		}
		if ev, open := anyEvent(r); open {
			t.Errorf("event %+v after the end", ev)
		}
	})
}

// The same over TCP, with the real clock: a login, a message, an end.
func TestOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, conns: make(chan *peer, 1)}
	served := make(chan struct{})
	var n atomic.Int32
	go func() {
		defer close(served)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			g.serve(nc)
		}
	}()
	c, err := New(Options{URLs: []string{"ws://" + ln.Addr().String() + "/ws"}, Token: func(context.Context) (string, error) { return "t", nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error)
	go func() { ran <- c.Run(ctx) }()
	r := &rig{T: t, g: g, c: c}
	p := ready(r)
	p.send(chat("a", 1))
	messages(r, "a/1")
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	_ = ln.Close()
	<-served
	if n.Load() != 1 {
		t.Errorf("%d connections, want 1", n.Load())
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := New(Options{Token: func(context.Context) (string, error) { return "", nil }}); !errors.Is(err, errNoURL) {
		t.Errorf("no URL: %v", err)
	}
	if _, err := New(Options{URLs: []string{"ws://x"}}); !errors.Is(err, errNoToken) {
		t.Errorf("no token: %v", err)
	}
}
