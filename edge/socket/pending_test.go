package socket

import (
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// Who has not logged in may leave little unread.
func TestPendingBeforeTheLogin(t *testing.T) {
	onLoop(t, func(c *Conn) {
		c.state = stLogin
		c.set(fBlocked)
		for range 50 {
			c.send(ws.OpPong, []byte(strings.Repeat("x", 125)))
		}
		if c.end != EndSlow {
			t.Errorf("end %d", c.end)
		}
		c.drop(fBlocked)
	})
}

// A reader that lags holds no queue any more once it is closed, whatever for.
func TestCloseCutsTheQueue(t *testing.T) {
	onLoop(t, func(c *Conn) {
		c.set(fBlocked)
		for range 50 {
			c.send(ws.OpText, []byte(strings.Repeat("x", 10<<10)))
		}
		c.w.outAt = 10<<10 + 100 // within the second frame
		c.close(EndExpired, "token expired")
		if n := cap(c.w.out); n > 16<<10 {
			t.Errorf("%d bytes are held", n)
		}
		if at := frameStart(c.w.out, c.w.outAt, true); c.w.out[at] != 0x80|byte(ws.OpClose) {
			t.Errorf("byte %x follows", c.w.out[at])
		}
		c.drop(fBlocked)
	})
}

// When many have to say goodbye to an uplink that refuses, they do not all try at each tick.
func TestGoodbyesComeInSteps(t *testing.T) {
	onLoop(t, func(c *Conn) {
		c.k.late = make([]*Conn, 2*lateStep+1)
		for i := range c.k.late {
			c.k.late[i] = c
		}
		for _, want := range []int{lateStep + 1, 1, 0} {
			if c.k.Tick(); len(c.k.late) != want {
				t.Errorf("%d wait, want %d", len(c.k.late), want)
			}
		}
	})
}
