package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/site"
	"github.com/wirepost/wirepost/shared/protocol"
)

// P11: whatever a connection does, it is closed within 5 s after its token has expired.
func TestExpiry(t *testing.T) {
	const life, within = 3 * time.Second, 5 * time.Second
	heartbeat := army.Frame(ws.OpText, true, `{"msgType":1}`)
	message := army.Frame(ws.OpText, true, army.Message("hello"))
	for name, do := range map[string]struct {
		read bool // the peer reads, and so sees the close frame
		act  func(t *testing.T, s *site.Site, p *peer)
	}{
		"silent":                 {true, func(*testing.T, *site.Site, *peer) {}},
		"in a message":           {true, func(_ *testing.T, _ *site.Site, p *peer) { p.write(message[:20]) }},
		"beyond its rate":        {true, func(_ *testing.T, _ *site.Site, p *peer) { p.write(bytes.Repeat(heartbeat, 5000)) }},
		"not reading":            {false, func(t *testing.T, s *site.Site, _ *peer) { flood(t, s, "goes") }},
		"with the uplink gone":   {true, func(_ *testing.T, s *site.Site, p *peer) { s.NATS.Shutdown(); p.write(message) }},
		"with too many messages": {true, func(_ *testing.T, _ *site.Site, p *peer) { p.write(bytes.Repeat(message, 3000)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := attacked(t, site.Options{})
			stays := login(t, s, token("stays"))
			expires := time.Now().Add(life).Truncate(time.Second) // as the token says it
			p := login(t, s, site.Token("goes", time.Until(expires)))
			if !do.read {
				_ = p.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			}
			do.act(t, s, p)
			if do.read {
				if code := p.closed(); code != protocol.CloseTokenExpired {
					t.Errorf("closed with %d", code)
				}
			}
			eventually(t, life+2*within, "it is closed", func() bool { return metrics(t, s).Get("closed_total", "token_expired", "4401") == 1 })
			if late := time.Since(expires); late < 0 || late > within {
				t.Errorf("closed %v after the token expired", late)
			}
			eventually(t, time.Until(expires.Add(within)), "the socket is gone", func() bool { return metrics(t, s).Get("connections") == 1 })
			stays.alive()
		})
	}
}

// flood sends a user frames until the edge holds some of them back, because the kernel
// takes no more. It is slow enough that less than ends a slow reader (1 MiB) has come when
// that is seen, which takes up to a Tick of the edge.
func flood(t *testing.T, s *site.Site, user string) {
	t.Helper()
	frame := []byte(`{"msgType":3,"x":"` + strings.Repeat("x", 16<<10) + `"}`)
	deliver := func() {
		if err := s.Deliver(user, frame); err != nil {
			t.Error(err)
		}
	}
	deliver() // what comes before the first one is checked may be left to a sync of the client
	eventually(t, 2*time.Second, "a frame is delivered", func() bool { return metrics(t, s).Get("downlink_frames_total", "delivered") == 1 })
	eventually(t, 5*time.Second, "the edge holds frames back", func() bool {
		for range 3 {
			deliver()
		}
		return metrics(t, s).Get("buffered_bytes") > 0
	})
}
