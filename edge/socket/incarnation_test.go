package socket_test

import (
	"errors"
	"testing"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

// [r] Each event names the incarnation of the lane that the frame before it is in. When an
// event is stored in another one, what was sent before it may be gone: the client is told
// to come back and send it again, and nothing behind it is published.
func TestRenewedLane(t *testing.T) {
	for name, c := range map[string]struct {
		stored []uint32 // where Connected and the frames are stored
		after  []uint32 // what they say of the frame before
	}{
		"the third frame":       {[]uint32{5, 5, 5, 9}, []uint32{0, 0, 5, 5}},
		"the second frame":      {[]uint32{5, 5, 9}, []uint32{0, 0, 5}},
		"not the first frame":   {[]uint32{5, 9, 9, 7}, []uint32{0, 0, 9, 9}},
		"an older incarnation":  {[]uint32{5, 5, 3}, []uint32{0, 0, 5}}, // the clock of who made it is wrong
		"one without a number":  {[]uint32{5, 5, 0}, []uint32{0, 0, 5}},
		"after one without":     {[]uint32{0, 0, 7}, []uint32{0, 0, 0}},
		"after one without too": {[]uint32{3, 0, 0, 7}, []uint32{0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
			p := r.open("/ws", "Authorization", "Bearer u1")
			p.loginReply()
			for range c.stored { // one more than there are answers
				p.text("x")
			}
			for i, lane := range c.stored {
				ev := r.up.next(t)
				if ev.After != c.after[i] || ev.N != uint64(i+1) {
					t.Errorf("event %d says %d, want %d", ev.N, ev.After, c.after[i])
				}
				ev.s.PublishDone(lane, nil)
			}
			if f := p.next(); f.Header.OpCode != ws.OpClose {
				t.Fatalf("no close frame but %x %q", f.Header.OpCode, f.Payload)
			} else if code, why := ws.ParseCloseFrameData(f.Payload); code != protocol.CloseUplinkStalled || why != "the uplink was renewed, send again what was not acknowledged" {
				t.Errorf("close %d %q", code, why)
			}
			ev := r.up.next(t)
			if ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonUplink || ev.After != c.stored[len(c.stored)-1] {
				t.Fatalf("published %s %q, after %d", ev.Type, ev.data, ev.After)
			}
			ev.s.PublishDone(0, errors.New("away")) // it is tried again and closes nothing twice
			r.up.next(t).s.PublishDone(1, nil)
			_ = p.Close()
			eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
			if n := r.metric("closed_total", "uplink_renewed"); n != 1 {
				t.Errorf("%v connections count as ended by it", n)
			}
		})
	}
}

// Connected is an event like the others when the edge announces its connections again.
func TestRenewedLaneIsSeenByConnected(t *testing.T) {
	r := serve(t, func(_ *socket.Config, r *rig) { r.up.auto = false })
	p := r.open("/ws", "Authorization", "Bearer u1")
	p.loginReply()
	a := r.down.next(t)
	r.up.next(t).s.PublishDone(4, nil)
	a.r.Resync(token(2))
	p.message()
	r.up.next(t).s.PublishDone(5, nil) // no frame was sent: nothing can be lost
	p.text("x")
	r.up.next(t).s.PublishDone(5, nil)
	a.r.Resync(token(3))
	p.message()
	again := r.up.next(t)
	if again.Type != envelope.Connected || again.After != 5 {
		t.Fatalf("published %s after %d", again.Type, again.After)
	}
	again.s.PublishDone(6, nil)
	p.expectClose(protocol.CloseUplinkStalled)
	if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.After != 5 {
		t.Errorf("published %s after %d", ev.Type, ev.After)
	}
}
