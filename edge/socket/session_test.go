package socket_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

func TestLoginRelayDeliverDisconnect(t *testing.T) {
	t.Parallel()
	r := serve(t, nil)
	p := r.open("/ws")
	p.text(` {"sendUserId":"u 1", "msgBody":{"token":"u 1","deviceId":"d1","resume":"e1.0.7"}, "msgType":2}`)
	m, reply := p.loginReply()
	a := r.down.next(t)
	if a.user.Raw() != "u 1" || a.resume != "e1.0.7" || a.conn != reply.ConnID {
		t.Errorf("attached %+v", a)
	}
	if m.Resume != "e1.0.1" || !reply.Resumed || reply.UserID != "u 1" || reply.Edge != "edge-a" ||
		reply.HeartbeatMs != 25000 || reply.MaxFrame != 128<<10 || reply.ExpiresAt < time.Now().Add(59*time.Minute).UnixMilli() {
		t.Errorf("login reply %+v %+v", m, reply)
	}
	connected := r.up.next(t)
	var hello envelope.Hello
	if err := json.Unmarshal([]byte(connected.data), &hello); err != nil {
		t.Fatal(err)
	}
	if connected.Type != envelope.Connected || connected.Conn != reply.ConnID || connected.Edge != "edge-a" || connected.N != 1 ||
		hello.DeviceID != "d1" || hello.Addr != p.LocalAddr().String() {
		t.Errorf("connected %+v %+v", connected, hello)
	}
	const body = `{"msgType":3,"bizType":1,"x":"é"}`
	p.text(body)
	if ev := r.up.next(t); ev.Type != envelope.Frame || ev.data != body || ev.N != 2 || ev.User != connected.User {
		t.Errorf("relayed %+v", ev)
	}
	a.r.Deliver(downlink.Frame{Data: []byte(`{"resume":"e1.0.9","msgType":3}`), At: token(9)})
	p.expectText(`{"resume":"e1.0.9","msgType":3}`)
	p.raw(frame(ws.OpClose, true, "\x03\xe8bye"))
	p.expectReply(1000)
	if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonClientClose || ev.N != 3 {
		t.Errorf("disconnected %+v", ev)
	}
	if <-r.down.detaches != a.r {
		t.Error("another receiver was detached")
	}
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
	if n := r.metric("closed_total", "peer", "client"); n != 1 {
		t.Errorf("closed %v", n)
	}
}

func TestTokenOfTheHandshake(t *testing.T) {
	r := serve(t, nil)
	p := r.open("/ws/u1", "Authorization", "Bearer u1")
	if _, reply := p.loginReply(); reply.UserID != "u1" || reply.Resumed {
		t.Errorf("reply %+v", reply)
	}
	p.text(plain)
	p.expectText(plain)
}

const plain = `{"msgType":1}`

func TestHeartbeatSpellings(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	classic := `{"sendUserId":"u1","receivedUserId":"","bizType":0,"bizOptModule":0,"msgBody":{"a":[1,{"msgType":3}],"b":"\\\"msgType\":3,"},"msgType":1}`
	for _, s := range []string{
		plain, `{"msgType": 1}`, "\n{ \"msgType\"\t:\r1 } ", `{"msgType":1.0}`, `{"msgType":10e-1}`, classic,
		`{"msgBody":null,"x":true,"y":-1.5e3,"msgType":1}`, `{"msgBody":{},"msgType":1,"z":[]}`,
	} {
		p.text(s)
		p.expectText(plain)
	}
	for _, s := range []string{
		`{"msgType":3}`, `{"msgType":11}`, `{"msgType":"1"}`, `{"a":{"msgType":1}}`, `{"a":"msgType","b":1}`, `{"a":"\"msgType\":1"}`,
		`[{"msgType":1}]`, `"msgType"`, `1`, ``, `{`, `{"msgType":1`, `{"msgType":1}}`, `{"msgType":1,}`, `{"msgType"}`, `hello`,
		`{"msgTypes":1}`, `{"msgType":-1}`, `{"a":1]`, `{"msgType":null}`, `{"msgType":99999999999999999999}`, `{"msgtype":1}`,
	} {
		p.text(s)
		if ev := r.up.next(t); ev.data != s || ev.Type != envelope.Frame {
			t.Errorf("%q became %q", s, ev.data)
		}
	}
	p.text(plain)
	p.expectText(plain) // nothing else was answered
	if n := r.metric("heartbeats_total"); n != 9 {
		t.Errorf("%v heartbeats", n)
	}
}

func TestHeartbeatAnswerCarriesANewPositionOnce(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	a := r.down.next(t)
	a.r.Moved(token(5))
	a.r.Moved(token(6))
	p.text(plain)
	p.expectText(`{"resume":"e1.0.6","msgType":1}`)
	p.text(plain)
	p.expectText(plain)
	a.r.Moved(token(7))
	a.r.Deliver(downlink.Frame{Data: []byte(`{"resume":"e1.0.8","msgType":3}`), At: token(8)})
	p.expectText(`{"resume":"e1.0.8","msgType":3}`)
	p.text(plain)
	p.expectText(plain)
}

// The order of what a connection sends holds because nothing is taken from it while a
// frame of it is at the uplink; also the heartbeat behind it waits.
func TestOneFrameInFlight(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	var all []byte
	for i := range 20 {
		all = append(all, frame(ws.OpText, true, fmt.Sprintf(`{"n":%d}`, i))...)
	}
	all = append(all, frame(ws.OpText, true, plain)...)
	p.raw(all)
	connected := r.up.next(t)
	if connected.Type != envelope.Connected {
		t.Fatalf("first event is %s", connected.Type)
	}
	connected.s.PublishDone(0, nil)
	for i := range 20 {
		ev := r.up.next(t)
		if want := fmt.Sprintf(`{"n":%d}`, i); ev.data != want {
			t.Fatalf("event %d is %q", i, ev.data)
		}
		p.text(fmt.Sprintf(`{"later":%d}`, i)) // makes the socket readable while the frame is in flight
		if len(r.up.events) != 0 {
			t.Fatal("two frames in flight")
		}
		if got := string(ev.Data); got != ev.data {
			t.Fatalf("the payload changed in flight: %q", got)
		}
		ev.s.PublishDone(0, nil)
	}
	p.expectText(plain)
	for i := range 20 {
		ev := r.up.next(t)
		if want := fmt.Sprintf(`{"later":%d}`, i); ev.data != want {
			t.Fatalf("event %q, want %q", ev.data, want)
		}
		ev.s.PublishDone(0, nil)
	}
}

func TestStalledUplink(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	p.raw(append(frame(ws.OpText, true, "a"), frame(ws.OpText, true, "b")...))
	r.up.next(t).s.PublishDone(0, errors.New("stalled"))
	p.expectClose(protocol.CloseUplinkStalled)
	// Nothing behind the frame is published, and Disconnected is tried again.
	for range 2 {
		ev := r.up.next(t)
		if ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonUplink {
			t.Fatalf("published %s %q", ev.Type, ev.data)
		}
		ev.s.PublishDone(0, errors.New("stalled"))
	}
	r.up.next(t).s.PublishDone(0, nil)
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
}

// An uplink that refuses at once does not use up the retries at once.
func TestRetriesOfDisconnectedPause(t *testing.T) {
	const tick = 50 * time.Millisecond
	r := serve(t, func(c *socket.Config, r *rig) { r.up.auto = false; c.Times.Tick = tick })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	_ = p.Close()
	begin := time.Now()
	for range 5 {
		r.up.next(t).s.PublishDone(0, errors.New("away"))
	}
	r.up.next(t).s.PublishDone(0, nil)
	if d := time.Since(begin); d < 3*tick {
		t.Errorf("five retries in %v", d)
	}
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
}

// Disconnected is tried until it is stored: else the session would be listed for as long as
// the edge lives. Who waits for that takes no place from others.
func TestDisconnectedIsTriedUntilItIsStored(t *testing.T) {
	r := serve(t, func(c *socket.Config, r *rig) { r.up.auto = false; c.Limits.Connections = 1 })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	_ = p.Close()
	for range 50 {
		r.up.next(t).s.PublishDone(0, errors.New("full"))
	}
	last := r.up.next(t)
	if last.Type != envelope.Disconnected {
		t.Fatalf("published %s", last.Type)
	}
	r.open("/ws", "Authorization", "Bearer u2").loginReply()
	r.up.next(t).s.PublishDone(0, nil)
	if n := r.Connections(); n != 2 {
		t.Errorf("%d connections, want the one that waits and the one that is open", n)
	}
	last.s.PublishDone(0, nil)
	eventually(t, "only the open one is left", func() bool { return r.Connections() == 1 })
}

func TestPeerGoesWhileAFrameIsInFlight(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	for _, reset := range []bool{true, false} {
		p := r.open("/ws", "Authorization", "Bearer u1")
		p.loginReply()
		r.up.next(t).s.PublishDone(0, nil)
		p.text("a")
		ev := r.up.next(t)
		p.text("b")
		if reset {
			_ = p.SetLinger(0)
		}
		_ = p.Close()
		if reset {
			eventually(t, "the reset is seen", func() bool { return r.metric("closed_total", "lost") == 1 })
		}
		ev.s.PublishDone(0, nil)
		ev = r.up.next(t)
		if !reset {
			if ev.data != "b" {
				t.Fatalf("what was sent before the end is lost: %s %q", ev.Type, ev.data)
			}
			ev.s.PublishDone(0, nil)
			ev = r.up.next(t)
		}
		if ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonClientClose {
			t.Fatalf("published %s %q", ev.Type, ev.data)
		}
		ev.s.PublishDone(0, nil)
		eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
	}
}

func TestRefusedLogins(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Login = 500 * time.Millisecond })
	for name, c := range map[string]struct {
		path, token, first string
		code               int
	}{
		"none in time":      {"/ws", "", "", protocol.CloseLoginTimeout},
		"other first frame": {"/ws", "", `{"msgType":3}`, protocol.CloseNotLogin},
		"heartbeat first":   {"/ws", "", plain, protocol.CloseNotLogin},
		"no JSON":           {"/ws", "", `hello`, protocol.CloseNotLogin},
		"no token":          {"/ws", "", `{"msgType":2,"msgBody":{}}`, protocol.CloseNotLogin},
		"wrong types":       {"/ws", "", `{"msgType":2,"msgBody":{"token":1}}`, protocol.CloseNotLogin},
		"long device":       {"/ws", "", `{"msgType":2,"msgBody":{"token":"u1","deviceId":"` + strings.Repeat("d", 129) + `"}}`, protocol.CloseNotLogin},
		"bad token":         {"/ws", "", `{"msgType":2,"msgBody":{"token":"refused"}}`, protocol.CloseTokenRefused},
		"expired token":     {"/ws", "", `{"msgType":2,"msgBody":{"token":"expired"}}`, protocol.CloseTokenExpired},
		"verifier away":     {"/ws", "", `{"msgType":2,"msgBody":{"token":"away"}}`, 1013},
		"foreign path":      {"/ws/u2", "", `{"msgType":2,"msgBody":{"token":"u1"}}`, protocol.CloseTokenRefused},
		"foreign sender":    {"/ws", "", `{"msgType":2,"sendUserId":"u2","msgBody":{"token":"u1"}}`, protocol.CloseTokenRefused},
		"too large":         {"/ws", "", `{"msgType":2,"msgBody":{"token":"` + strings.Repeat("a", 17<<10) + `"}}`, 1009},
		"handshake token":   {"/ws", "refused", "", protocol.CloseTokenRefused},
		"handshake, path":   {"/ws/u2", "u1", "", protocol.CloseTokenRefused},
		"handshake expired": {"/ws", "expired", "", protocol.CloseTokenExpired},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			var header []string
			if c.token != "" {
				header = []string{"Authorization", "Bearer " + c.token}
			}
			p := r.open(c.path, header...)
			if c.first != "" {
				p.text(c.first)
			}
			p.expectClose(c.code)
		})
	}
	if len(r.up.events) != 0 || len(r.down.attaches) != 0 {
		t.Error("a refused login was published or attached")
	}
}

func TestAttachFails(t *testing.T) {
	r := serve(t, func(c *socket.Config, r *rig) { r.down.auto = false; c.Times.Attach = 50 * time.Millisecond })
	for _, c := range []struct {
		err  error
		code int
	}{{downlink.ErrTooManyConnections, 4429}, {downlink.ErrNotReady, 4002}, {nil, 4002}} {
		p := r.open("/ws", "Authorization", "Bearer u1")
		a := r.down.next(t)
		if c.err != nil {
			a.r.AttachFailed(c.err)
		}
		p.expectClose(c.code)
		a.r.Attached(true, token(1)) // too late
		if c.err == nil {
			<-r.down.detaches
		}
	}
	if len(r.up.events) != 0 || len(r.down.detaches) != 0 {
		t.Error("who was not attached was announced or detached")
	}
}

func TestExpiryAndRefresh(t *testing.T) {
	t.Parallel()
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.ExpiryNotice = 900 * time.Millisecond })
	p := r.login("u1/1s")
	if m := p.message(); m.Code != protocol.NoticeTokenExpiry || m.RetryAfterMs > 900 || m.RetryAfterMs < 1 {
		t.Fatalf("notice %+v", m)
	}
	p.text(`{"msgType":2,"msgBody":{"token":"u1/1500ms"}}`)
	extended := time.Now()
	if _, reply := p.loginReply(); !reply.Resumed {
		t.Errorf("refresh reply %+v", reply)
	}
	p.text("still relayed")
	if ev := r.up.next(t); ev.data != "still relayed" {
		t.Fatalf("published %q", ev.data)
	}
	if m := p.message(); m.Code != protocol.NoticeTokenExpiry {
		t.Fatalf("notice %+v", m)
	}
	p.expectClose(protocol.CloseTokenExpired)
	if d := time.Since(extended); d < 1400*time.Millisecond || d > 6500*time.Millisecond {
		t.Errorf("expired after %v", d)
	}
	if ev := r.up.next(t); ev.Reason != envelope.ReasonExpired {
		t.Errorf("reason %q", ev.Reason)
	}
}

func TestRefreshOfAnotherUser(t *testing.T) {
	r := serve(t, nil)
	for tok, code := range map[string]int{"u2": 4501, "refused": 4501, "expired": 4401} {
		p := r.login("u1")
		p.text(`{"msgType":2,"msgBody":{"token":"` + tok + `"}}`)
		p.expectClose(code)
		r.up.next(t) // Disconnected
	}
}

func TestResync(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	a := r.down.next(t)
	r.up.next(t).s.PublishDone(0, nil)
	a.r.Resync(token(3))
	if m := p.message(); m.MsgType != protocol.Notice || m.Code != protocol.NoticeResync || m.Resume != "e1.0.3" {
		t.Fatalf("notice %+v", m)
	}
	again := r.up.next(t)
	if again.Type != envelope.Connected {
		t.Fatalf("published %s", again.Type)
	}
	a.r.Resync(token(4)) // while that is in flight: announced once more, after it
	p.message()
	again.s.PublishDone(0, nil)
	if again = r.up.next(t); again.Type != envelope.Connected || again.N != 3 {
		t.Fatalf("published %s %d", again.Type, again.N)
	}
	again.s.PublishDone(0, nil)
	p.text("x")
	if ev := r.up.next(t); ev.data != "x" {
		t.Fatalf("published %q", ev.data)
	}
}

func TestSilence(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Heartbeat = 100 * time.Millisecond })
	p := r.login("u1")
	begin := time.Now()
	if f := p.next(); f.Header.OpCode != ws.OpPing {
		t.Fatalf("opcode %x", f.Header.OpCode)
	}
	p.expectClose(protocol.ClosePingTimeout)
	if d := time.Since(begin); d < 250*time.Millisecond {
		t.Errorf("closed after %v", d)
	}
	if ev := r.up.next(t); ev.Reason != envelope.ReasonPingTimeout {
		t.Errorf("reason %q", ev.Reason)
	}
}

// Any byte is a sign of life, a single one of a frame that is not complete too.
func TestAnyByteIsASignOfLife(t *testing.T) {
	t.Parallel()
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Heartbeat = 200 * time.Millisecond })
	p := r.login("u1")
	slow := frame(ws.OpText, true, "012")
	for _, b := range slow {
		if f := p.next(); f.Header.OpCode != ws.OpPing {
			t.Fatalf("opcode %x", f.Header.OpCode)
		}
		p.raw([]byte{b})
	}
	if ev := r.up.next(t); ev.data != "012" {
		t.Errorf("published %q", ev.data)
	}
}

// A reader that takes nothing is closed; what waits for it is dropped, but for the frame
// that is under way, so that its close frame is the next thing it sees.
func TestSlowReaders(t *testing.T) {
	for _, c := range []struct {
		name    string
		times   socket.Times
		pending int
		frames  int
	}{
		{"too much", socket.Times{}, 64 << 10, 1000},
		{"no progress", socket.Times{Write: 50 * time.Millisecond}, 64 << 20, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := serve(t, func(cfg *socket.Config, _ *rig) {
				cfg.Times, cfg.Limits.Pending = c.times, c.pending
				cfg.Times.Tick = 10 * time.Millisecond
				cfg.Times.Close = time.Minute
			})
			p := r.login("u1")
			a := r.down.next(t)
			data := []byte(`{"msgType":3,"x":"` + strings.Repeat("x", 16<<10) + `"}`)
			for range c.frames {
				a.r.Deliver(downlink.Frame{Data: data, At: token(2)})
			}
			eventually(t, "closed as slow", func() bool { return r.metric("closed_total", "slow_reader") == 1 })
			n := 0
			for {
				f := p.next()
				if f.Header.OpCode == ws.OpClose {
					if code, _ := ws.ParseCloseFrameData(f.Payload); int(code) != protocol.CloseSlowReader {
						t.Errorf("close %d", code)
					}
					break
				}
				if string(f.Payload) != string(data) {
					t.Fatal("a frame was cut")
				}
				n++
			}
			if n >= c.frames {
				t.Error("nothing was dropped: the reader was not slow")
			}
			if ev := r.up.next(t); ev.Reason != envelope.ReasonSlow {
				t.Errorf("reason %q", ev.Reason)
			}
		})
	}
}

func TestWritesOfOneTurnAreOne(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	a := r.down.next(t)
	for i := range 5000 {
		a.r.Deliver(downlink.Frame{Data: fmt.Appendf(nil, `{"n":%d}`, i), At: token(uint64(i + 2))})
	}
	for i := range 5000 {
		p.expectText(fmt.Sprintf(`{"n":%d}`, i))
	}
}
