package socket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

func TestDrain(t *testing.T) {
	const n, rate = 20, 100
	r := serve(t, func(c *socket.Config, _ *rig) { c.DrainRate = rate })
	early := r.connect() // in the handshake when the drain begins
	early.raw([]byte("GET /ws HTTP/1.1\r\n"))
	peers := make([]*peer, n)
	for i := range peers {
		peers[i] = r.login(fmt.Sprintf("u%d", i))
	}
	eventually(t, "the handshake began", func() bool { return r.metric("bytes_in_total") > 0 && r.Connections() == n+1 })
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- r.Drain(context.Background()) }()
	for i, p := range peers {
		if m := p.message(); m.MsgType != protocol.Notice || m.Code != protocol.NoticeDrain || m.RetryAfterMs != 1000 {
			t.Fatalf("notice %+v", m)
		}
		if i == 0 { // the drain has begun
			early.raw([]byte("Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"))
			if answer, err := io.ReadAll(early); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: 1\r\n") {
				t.Errorf("answer %q, %v", answer, err)
			}
		}
		p.expectClose(protocol.CloseDrain)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < time.Second*n/rate/2 {
		t.Errorf("%d sockets went in %v", n, d)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		_ = c.Close()
		t.Error("still accepting")
	}
	for range n {
		if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonDrain {
			t.Errorf("published %s %q", ev.Type, ev.Reason)
		}
	}
}

// Clients that leave when they are told go at the rate, like those that are closed: the
// notices are as evenly spread as the turns.
func TestDrainTellsAtTheRate(t *testing.T) {
	const n, rate = 120, 60
	r := serve(t, func(c *socket.Config, _ *rig) { c.DrainRate = rate })
	told := make(chan time.Time, n)
	for i := range n {
		p := r.login(fmt.Sprintf("u%d", i))
		go func() {
			var m protocol.Message
			h, err := ws.ReadHeader(p.r)
			b := make([]byte, min(h.Length, 1000))
			_, short := io.ReadFull(p.r, b)
			if err = errors.Join(err, short, json.Unmarshal(b, &m)); err != nil || m.Code != protocol.NoticeDrain {
				t.Errorf("no notice but %q, %v", b, err)
			}
			time.Sleep(time.Duration(rand.Int64N(m.RetryAfterMs+1)) * time.Millisecond) // the protocol's random part
			told <- time.Now()
			_ = p.Close()
		}()
	}
	if err := r.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	var left []time.Time
	for range n {
		left = append(left, <-told)
	}
	slices.SortFunc(left, time.Time.Compare)
	most := 0
	for i, at := range left {
		for most < n-i && left[i+most].Sub(at) < time.Second {
			most++
		}
	}
	// A fifth batch of the loop's 250 ms may fall into a second, and chance adds some.
	if most > rate*3/2 {
		t.Errorf("%d of %d left in one second, the rate is %d", most, n, rate)
	}
}

func TestDrainWaitsForTheFrameInFlight(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	p.text("x")
	ev := r.up.next(t)
	done := make(chan error, 1)
	go func() { done <- r.Drain(context.Background()) }()
	if m := p.message(); m.Code != protocol.NoticeDrain {
		t.Fatalf("notice %+v", m)
	}
	_ = p.SetReadDeadline(time.Now().Add(2500 * time.Millisecond)) // its time is over after 2 s
	if _, err := p.r.Read(make([]byte, 1)); err == nil {
		t.Error("closed while its frame was in flight")
	}
	_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
	ev.s.PublishDone(0, nil)
	p.expectClose(protocol.CloseDrain)
	r.up.next(t).s.PublishDone(0, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// An edge that goes away does not wait for ever for what cannot be stored, and counts it.
func TestDrainGivesUpDisconnected(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	_ = p.Close()
	r.up.next(t).s.PublishDone(0, errors.New("away"))
	done := make(chan error, 1)
	go func() { done <- r.Drain(t.Context()) }()
	patience := time.After(10 * time.Second)
	for {
		select {
		case ev := <-r.up.events:
			ev.s.PublishDone(0, errors.New("away"))
		case err := <-done:
			if n := r.metric("lost_events_total"); err != nil || n != 1 {
				t.Errorf("Drain = %v, %v lost", err, n)
			}
			return
		case <-patience:
			t.Fatal("Drain waits")
		}
	}
}

// Who sends one frame behind the other goes too: after the frame that is in flight.
func TestDrainEndsABusySender(t *testing.T) {
	r := serve(t, func(c *socket.Config, r *rig) { r.up.auto = false; c.DrainRate = 100 })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	for range 3000 {
		p.text("x")
	}
	ev := r.up.next(t)
	done := make(chan error, 1)
	go func() { done <- r.Drain(context.Background()) }()
	if m := p.message(); m.Code != protocol.NoticeDrain {
		t.Fatalf("notice %+v", m)
	}
	begin := time.Now()
	frames := 1
	for ; ev.Type == envelope.Frame; frames++ {
		time.AfterFunc(5*time.Millisecond, func() { ev.s.PublishDone(0, nil) })
		ev = r.up.next(t)
	}
	if d := time.Since(begin); d > 4*time.Second || ev.Reason != envelope.ReasonDrain {
		t.Errorf("published %s %q after %v and %d frames", ev.Type, ev.Reason, d, frames)
	}
	ev.s.PublishDone(0, nil)
	p.closeFrame(protocol.CloseDrain)
	_ = p.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.DrainRate = 1 })
	peers := []*peer{r.login("u1"), r.login("u2"), r.login("u3"), r.login("u4")}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("drain: %v", err)
	}
	for _, p := range peers {
		f := p.next() // nobody's turn has come, so nobody was told
		if code, _ := ws.ParseCloseFrameData(f.Payload); int(code) != protocol.CloseDrain {
			t.Errorf("close %d", code)
		}
		if ev := r.up.next(t); ev.Reason != envelope.ReasonDrain {
			t.Errorf("reason %q", ev.Reason)
		}
	}
}

// Abort comes right behind a drain that ran out of time: every session is ended before.
func TestDrainCutsBeforeItReturns(t *testing.T) {
	const n = 50
	r := serve(t, func(c *socket.Config, _ *rig) { c.DrainRate = 1 })
	for i := range n {
		r.login(fmt.Sprintf("u%d", i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("drain: %v", err)
	}
	r.Abort()
	if got := len(r.up.events); got != n {
		t.Errorf("%d of %d sessions were ended", got, n)
	}
}

func TestAbort(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	a := r.down.next(t)
	r.Abort()
	if n, err := p.r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if len(r.up.events) != 0 {
		t.Error("a crash published something")
	}
	a.r.Deliver(downlink.Frame{Data: []byte("{}")}) // calls that are late do no harm
	a.r.Moved(token(1))
}

func TestAbortBeforeServe(t *testing.T) {
	for range 20 {
		r := serve(t, nil) // Serve and Abort race
		r.Abort()
		r.Abort()
	}
	s, err := socket.NewEcho(config(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s.Abort()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(socket.Listener{Listener: ln}); !errors.Is(err, socket.ErrAborted) {
		t.Errorf("serve: %v", err)
	}
}

func TestOverload(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Limits.Connections = 3 })
	for i := range 3 {
		r.login(fmt.Sprintf("u%d", i))
	}
	answer, err := io.ReadAll(r.connect())
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
		t.Errorf("answer %q, %v", answer, err)
	}
	eventually(t, "the place is free again", func() bool { return r.Connections() == 3 })
}

func TestBudgetOfBuffers(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Loops = 1; c.Limits.Buffered = 64 << 10 })
	greedy := r.login("u1")
	part := frame(ws.OpText, true, strings.Repeat("x", 100<<10))
	greedy.raw(part[:60<<10])
	greedy.expectClose(1013)
	r.up.next(t)  // Disconnected
	r.login("u2") // others go on
	eventually(t, "the buffers are back", func() bool { return r.metric("buffered_bytes") == 0 })
}

// Without a byte of buffers left a handshake is refused in HTTP.
func TestNoBuffersForAHandshake(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Loops = 1; c.Limits.Buffered = 1 })
	const whole = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	for _, in := range []string{whole, whole[:20]} {
		p := r.connect()
		p.raw([]byte(in))
		if answer, err := io.ReadAll(p); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
			t.Errorf("answer %q, %v", answer, err)
		}
		_ = p.Close()
	}
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
	if n := r.metric("handshakes_total"); n != 0 {
		t.Errorf("%v handshakes were counted", n)
	}
}

// Refused connections that linger are few: beyond them the answer comes with the end, and
// nobody waits for a client to read it.
func TestFarOverTheLimit(t *testing.T) {
	const n = 300
	r := serve(t, func(c *socket.Config, _ *rig) { c.Loops = 1; c.Limits.Connections = 1; c.Times.Tick = time.Second })
	r.connect()
	peers := make([]*peer, n)
	for i := range peers {
		peers[i] = r.connect()
		peers[i].raw([]byte("GET /ws HTTP/1.1\r\n"))
	}
	eventually(t, "all were refused", func() bool { return r.metric("handshakes_refused_total", "connections") == n })
	if left := r.Connections(); left > 1+128 {
		t.Errorf("%d connections linger", left)
	}
	for _, p := range peers {
		// A request that comes behind the end is answered with a reset; the answer was read before.
		if answer, _ := io.ReadAll(p); !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
			t.Fatalf("answer %q", answer)
		}
	}
}

// Who comes while the edge cannot take more is told to come again; who is there stays.
func TestTurnedAway(t *testing.T) {
	for reason, with := range map[string]func(c *socket.Config, over func() bool){
		"memory": func(c *socket.Config, over func() bool) { c.ShortOfMemory = over },
		"logins": func(c *socket.Config, over func() bool) { c.LoginsLate = over },
	} {
		t.Run(reason, func(t *testing.T) {
			var over atomic.Bool
			r := serve(t, func(c *socket.Config, _ *rig) { with(c, over.Load) })
			p := r.login("u1")
			over.Store(true)
			answer, err := io.ReadAll(r.connect())
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
				t.Errorf("answer %q, %v", answer, err)
			}
			p.text(plain)
			p.expectText(plain)
			if n := r.metric("handshakes_refused_total", reason); n != 1 {
				t.Errorf("%v refused for %s", n, reason)
			}
			over.Store(false)
			r.login("u2")
		})
	}
}
