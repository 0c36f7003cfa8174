package socket

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/handshake"
)

// A connection has one timer at the loop. It is set to the earliest thing that could be
// due; bytes that arrive only note when, and the timer finds out when it fires.

// timeout looks at everything that can be due.
func (c *Conn) timeout() {
	if c.isDue(); c.state != stClosed {
		c.rearm()
	}
}

func (c *Conn) isDue() {
	now, t := c.k.now(), &c.k.srv.cfg.Times
	switch c.state {
	case stHandshake:
		if c.deadline.reached(now) {
			c.refuse(handshake.RefuseTimeout)
		}
		return
	case stClosing:
		if c.deadline.reached(now) {
			c.closeSocket()
		}
		return
	case stLogin:
		if c.deadline.reached(now) {
			c.close(EndLoginTimeout, "no login in time")
			return
		}
	case stVerify:
		if c.deadline.reached(now) {
			c.close(EndNoVerdict, "the token could not be verified in time")
			return
		}
	case stAttach:
		if c.deadline.reached(now) {
			c.close(EndNotAttached, "the downlink is not ready, reconnect")
			return
		}
	case stOpen:
		if c.isSilent(now, t.Heartbeat); c.state == stOpen {
			c.k.layer.check(c, now)
		}
	}
	c.isStuck(now, t)
	c.relieve(now)
}

// isSilent pings a peer after each interval of silence, and closes after 2.5 of them.
// While the connection is paused the peer's bytes wait unread, so its silence says nothing.
func (c *Conn) isSilent(now stamp, interval time.Duration) {
	if c.paused() {
		c.hear(now)
		return
	}
	if c.seen.after(interval * 5 / 2).reached(now) {
		c.close(EndSilent, "nothing was heard for 2.5 intervals")
		return
	}
	if c.seen.after(interval * time.Duration(c.pings+1)).reached(now) {
		c.pings++
		c.send(ws.OpPing, nil)
	}
}

// isStuck ends what started and does not go on, and what a drain has reached.
func (c *Conn) isStuck(now stamp, t *Times) {
	if c.state >= stClosing {
		return
	}
	if w := c.w; w != nil {
		if !w.parser.resting() && !c.paused() && w.since.after(t.Message).reached(now) {
			c.fail(faultSlowMessage)
			return
		}
		if c.has(fBlocked) && w.moved.after(t.Write).reached(now) {
			c.close(EndSlow, "reads too slowly")
			return
		}
	}
	if c.has(fDraining) && c.sess.drainAt.reached(now) {
		c.takeTurn(now)
	}
}

// rearm sets the timer to the earliest thing that could be due.
func (c *Conn) rearm() {
	if c.state == stClosed {
		return
	}
	now, t := c.k.now(), &c.k.srv.cfg.Times
	next, exact := c.deadline, false
	if c.state == stOpen {
		next = c.seen.after(min(t.Heartbeat*time.Duration(c.pings+1), t.Heartbeat*5/2))
		if at, ok := c.k.layer.next(c); ok {
			next = earlier(next, at)
		}
	}
	if c.state < stClosing {
		if c.has(fLimited) && !c.has(fPaid) {
			next, exact = earlier(next, now.after(c.spent.wait(&c.k.srv.cfg.Rates))), true
		}
		if w := c.w; w != nil {
			if !w.parser.resting() {
				next = earlier(next, w.since.after(t.Message))
			}
			if c.has(fBlocked) {
				next = earlier(next, w.moved.after(t.Write))
			}
		}
		if c.has(fDraining) && !(c.has(fInFlight) && c.hadTurn(now)) {
			next = earlier(next, c.sess.drainAt)
		}
	}
	if exact {
		c.k.loop.ArmExact(c.key, next.sub(now))
	} else {
		c.k.loop.Arm(c.key, next.sub(now))
	}
}
