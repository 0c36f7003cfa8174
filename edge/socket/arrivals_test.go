package socket_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge/socket"
)

// arriving serves on one loop with room for few that are not logged in.
func arriving(t *testing.T, n int, change func(*socket.Config, *rig)) *rig {
	t.Helper()
	return serve(t, func(c *socket.Config, r *rig) {
		c.Loops, c.Limits.Arriving = 1, n
		if change != nil {
			change(c, r)
		}
	})
}

// refused says that a new connection is answered with 503.
func (r *rig) refused(reason string) {
	r.t.Helper()
	before := r.metric("handshakes_refused_total", reason)
	answer, err := io.ReadAll(r.connect())
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
		r.t.Errorf("answer %q, %v", answer, err)
	}
	if n := r.metric("handshakes_refused_total", reason); n != before+1 {
		r.t.Errorf("%v refused for %s, before it were %v", n, reason, before)
	}
}

// Handshakes, logins, tokens that are verified and receivers that are attached share the
// places; who is open has none of them.
func TestArrivingAreCounted(t *testing.T) {
	r := arriving(t, 3, func(_ *socket.Config, r *rig) { r.down.auto = false })
	for i := range 5 { // more than there are places
		p := r.open("/ws", "Authorization", "Bearer u1")
		r.down.next(t).r.Attached(false, token(uint64(i+1)))
		p.loginReply()
	}
	handshake := r.connect()
	handshake.raw([]byte("GET /ws"))
	login := r.open("/ws")
	attach := r.open("/ws", "Authorization", "Bearer u2")
	waits := r.down.next(t)
	eventually(t, "three arrive", func() bool { return r.metric("connections_arriving") == 3 })
	r.refused("arriving")
	_ = handshake.Close()
	eventually(t, "one is gone", func() bool { return r.metric("connections_arriving") == 2 })
	third := r.open("/ws")
	r.refused("arriving")
	waits.r.Attached(false, token(9))
	attach.loginReply()
	fourth := r.open("/ws")
	r.refused("arriving")
	for _, p := range []*peer{login, third, fourth} {
		_ = p.Close()
	}
	eventually(t, "nobody arrives", func() bool { return r.metric("connections_arriving") == 0 })
	if n := r.metric("closed_total", "gave_way"); n != 0 {
		t.Errorf("%v gave way, none of them for long enough", n)
	}
}

// Those who only sit there do not keep out who means it: the oldest gives way, in the
// handshake and in the login.
func TestWhoSitsThereGivesWay(t *testing.T) {
	t.Parallel()
	r := arriving(t, 2, func(c *socket.Config, _ *rig) { c.Times.Handshake, c.Times.Login = time.Minute, time.Minute })
	drip := r.connect()
	drip.raw([]byte("GET /ws"))
	silent := r.open("/ws")
	r.refused("arriving") // they are not old enough
	begin := time.Now()
	comesIn := func() bool {
		p := r.connect()
		if p.tryLogin() {
			return true
		}
		_ = p.Close()
		return false
	}
	eventually(t, "one gives way", comesIn)
	if d := time.Since(begin); d < 500*time.Millisecond {
		t.Errorf("the first gave way after %v", d)
	}
	if answer, err := io.ReadAll(drip); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("the oldest got %q, %v", answer, err)
	}
	held := r.connect() // takes the place of the one that is logged in
	eventually(t, "both places are taken", func() bool { return r.metric("connections_arriving") == 2 })
	eventually(t, "the other one gives way", comesIn) // it is a little younger
	silent.expectClose(1013)
	if n := r.metric("closed_total", "gave_way"); n != 1 {
		t.Errorf("%v gave way", n)
	}
	_ = held.Close()
}

// tryLogin sends a whole handshake with a token, and reports whether it was accepted.
func (p *peer) tryLogin() bool {
	p.t.Helper()
	// A refusal may come before the request is written.
	_, _ = p.Write([]byte("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer u1\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 101"))
	_, err := io.ReadFull(p, head)
	return err == nil && string(head) == "HTTP/1.1 101"
}

// Who waits for the edge itself does not give way: what is under way is finished first.
func TestWhoIsAttachedDoesNotGiveWay(t *testing.T) {
	t.Parallel()
	r := arriving(t, 1, func(_ *socket.Config, r *rig) { r.down.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	a := r.down.next(t)
	wait := time.NewTimer(1500 * time.Millisecond) // longer than the edge's patience, which has no signal
	<-wait.C
	r.refused("arriving")
	a.r.Attached(true, token(1))
	p.loginReply()
}
