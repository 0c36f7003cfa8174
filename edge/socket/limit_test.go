package socket_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/protocol"
)

const burst = 10 // seconds of its rate that a connection may send at once

// A pause ends when time has paid for it, not at the next Tick with all the others.
func TestPausesAreExact(t *testing.T) {
	t.Parallel()
	r := serve(t, func(cfg *socket.Config, _ *rig) { cfg.Rates, cfg.Times.Tick = socket.Rates{Frames: 50}, time.Hour })
	p := r.login("u1")
	const n = burst*50 + 10
	go func() { _, _ = p.Write(bytes.Repeat(frame(ws.OpText, true, plain), n)) }()
	for range n {
		p.expectText(plain)
	}
}

// Each kind of frame counts; nothing of what is too much is dropped, it only comes later.
// The time is a lower bound: no machine is too slow for it.
func TestRates(t *testing.T) {
	const rate, over = 100, 50
	const n = burst*rate + over
	message := frame(ws.OpText, true, `{"msgType":3}`)
	pieces := append(frame(ws.OpText, false, "a"), bytes.Repeat(frame(ws.OpContinuation, false, ""), n-2)...)
	pieces = append(pieces, frame(ws.OpContinuation, true, "b")...)
	for name, c := range map[string]struct {
		rates socket.Rates
		send  []byte
		took  func(r *rig, p *peer) // awaits that all was taken
	}{
		"heartbeats": {socket.Rates{Frames: rate}, bytes.Repeat(frame(ws.OpText, true, plain), n), func(_ *rig, p *peer) {
			for range n {
				p.expectText(plain)
			}
		}},
		"pings": {socket.Rates{Frames: rate}, bytes.Repeat(frame(ws.OpPing, true, "x"), n), func(_ *rig, p *peer) {
			for range n {
				if f := p.next(); f.Header.OpCode != ws.OpPong {
					p.t.Fatalf("opcode %x", f.Header.OpCode)
				}
			}
		}},
		"messages": {socket.Rates{Frames: rate}, bytes.Repeat(message, n), func(r *rig, p *peer) {
			for range n {
				r.up.next(p.t)
			}
		}},
		"fragments": {socket.Rates{Frames: rate}, pieces, func(r *rig, p *peer) {
			if ev := r.up.next(p.t); ev.data != "ab" {
				p.t.Errorf("published %d bytes", len(ev.data))
			}
		}},
		"pongs": {socket.Rates{Frames: rate}, append(bytes.Repeat(frame(ws.OpPong, true, ""), n), message...), func(r *rig, p *peer) { r.up.next(p.t) }},
		"bytes": {socket.Rates{Bytes: rate << 10}, bytes.Repeat(frame(ws.OpText, true, strings.Repeat("x", 10<<10-8)), n/10), func(r *rig, p *peer) {
			for range n / 10 {
				r.up.next(p.t)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := serve(t, func(cfg *socket.Config, _ *rig) { cfg.Rates, cfg.Limits.Fragments = c.rates, n })
			p := r.login("u1")
			begin := time.Now()
			go func() { _, _ = p.Write(c.send) }()
			c.took(r, p)
			if d := time.Since(begin); d < over*time.Second/rate/2 {
				t.Errorf("%d came in %v", n, d)
			}
			why := "limited_frames_total"
			if c.rates.Bytes > 0 {
				why = "limited_bytes_total"
			}
			if r.metric(why) == 0 {
				t.Errorf("%s is 0", why)
			}
			eventually(t, "nobody is limited any more", func() bool { return r.metric("connections_limited") == 0 })
			if n := r.metric("closed_total"); n != 0 {
				t.Errorf("%v connections were closed", n)
			}
		})
	}
}

// Within its burst a connection is never paused.
func TestBurstIsFree(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Rates = socket.Rates{Frames: 20, Bytes: 10 << 10} })
	p := r.login("u1") // a frame
	for range burst*20 - 1 {
		p.text(plain)
	}
	for range burst*20 - 1 {
		p.expectText(plain)
	}
	if n := r.metric("limited_frames_total") + r.metric("limited_bytes_total"); n != 0 {
		t.Errorf("%v pauses", n)
	}
}

// limited returns a peer that is not read for some seconds.
func (r *rig) limited(tok string) *peer {
	r.t.Helper()
	p := r.login(tok)
	p.raw(bytes.Repeat(frame(ws.OpText, true, plain), burst*2))
	for range burst {
		p.expectText(plain) // the login was the first of burst + 1
	}
	eventually(r.t, "it is limited", func() bool { return r.metric("connections_limited") == 1 })
	return p
}

func oneASecond(c *socket.Config, _ *rig) { c.Rates.Frames = 1 }

// A connection that is not read is not silent: its heartbeats wait.
func TestLimitedIsNotSilent(t *testing.T) {
	t.Parallel()
	r := serve(t, func(c *socket.Config, r *rig) { oneASecond(c, r); c.Times.Heartbeat = 300 * time.Millisecond })
	p := r.limited("u1")
	for range 3 { // one a second, each after more than 2.5 intervals
		p.expectText(plain)
	}
	if n := r.metric("closed_total"); n != 0 {
		t.Errorf("%v connections were closed", n)
	}
}

// What ends a connection ends one that is not read, too.
func TestLimitedEnds(t *testing.T) {
	for name, c := range map[string]struct {
		token string
		do    func(r *rig, p *peer)
		code  int
	}{
		"the token expires": {"u1/2s", func(*rig, *peer) {}, protocol.CloseTokenExpired},
		"the edge drains":   {"u1", func(r *rig, _ *peer) { go func() { _ = r.Drain(context.Background()) }() }, protocol.CloseDrain},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, oneASecond)
			p := r.limited(c.token)
			c.do(r, p)
			p.closeFrame(c.code)
			if n := r.metric("connections_limited"); n != 0 {
				t.Errorf("%v limited connections", n)
			}
		})
	}
	t.Run("the peer goes", func(t *testing.T) {
		r := serve(t, oneASecond)
		p := r.limited("u1")
		_ = p.SetLinger(0)
		_ = p.Close()
		eventually(t, "nothing left", func() bool { return r.Connections() == 0 && r.metric("connections_limited") == 0 })
	})
}

// Before the login, too.
func TestLimitedBeforeTheLogin(t *testing.T) {
	t.Parallel()
	r := serve(t, func(c *socket.Config, r *rig) { oneASecond(c, r); c.Times.Login = 2 * time.Second })
	p := r.open("/ws")
	p.raw(bytes.Repeat(frame(ws.OpPing, true, ""), 1000))
	pongs := 0
	for f := p.next(); f.Header.OpCode == ws.OpPong; f = p.next() {
		pongs++
	}
	if pongs < burst || pongs > burst+1+4 {
		t.Errorf("%d pings were answered", pongs)
	}
	if n := r.metric("closed_total", "login_timeout"); n != 1 {
		t.Errorf("%v closed for want of a login", n)
	}
}

// What comes behind our close frame is read for a while only, also without a fault.
func TestClosingReadsLittle(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Close = 500 * time.Millisecond })
	p := r.login("u1")
	p.raw(frame(ws.OpBinary, true, "a")) // closed with 1003, and the peer's close frame is awaited
	pings := bytes.Repeat(frame(ws.OpPing, true, "x"), 8<<10)
	for {
		if _, err := p.Write(pings); err != nil {
			break
		}
	}
	if n := r.metric("bytes_in_total"); n > 300<<10 {
		t.Errorf("%v bytes were read", n)
	}
}
