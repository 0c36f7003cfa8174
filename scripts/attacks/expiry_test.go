package main

import (
	"bytes"
	"net"
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
		act  func(s *site.Site, p *peer, user string)
	}{
		"silent":                 {true, func(*site.Site, *peer, string) {}},
		"in a message":           {true, func(_ *site.Site, p *peer, _ string) { p.write(message[:20]) }},
		"beyond its rate":        {true, func(_ *site.Site, p *peer, _ string) { p.write(bytes.Repeat(heartbeat, 5000)) }},
		"not reading":            {false, func(s *site.Site, _ *peer, user string) { flood(t, s, user, 900<<10) }}, // less than ends a slow reader
		"with the uplink gone":   {true, func(s *site.Site, p *peer, _ string) { s.NATS.Shutdown(); p.write(message) }},
		"with too many messages": {true, func(_ *site.Site, p *peer, _ string) { p.write(bytes.Repeat(message, 3000)) }},
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
			do.act(s, p, "goes")
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

// flood sends a user frames, some bytes in all, until the edge holds some of them back.
func flood(t *testing.T, s *site.Site, user string, size int) {
	frame := []byte(`{"msgType":3,"x":"` + string(bytes.Repeat([]byte("x"), 16<<10)) + `"}`)
	for range size / len(frame) {
		if err := s.Deliver(user, frame); err != nil {
			t.Error(err)
		}
	}
	eventually(t, 2*time.Second, "the edge holds frames back", func() bool { return metrics(t, s).Get("buffered_bytes") > 0 })
}
