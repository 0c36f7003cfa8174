package socket

import (
	"time"

	"github.com/wirepost/wirepost/edge/handshake"
)

const (
	drainStep = 256 // connections that one message of a drain looks at

	// A client whose turn has come is told, leaves within leaveWithin if it heeds notices,
	// and is closed after leaveBy if it does not.
	leaveWithin = time.Second
	leaveBy     = 2 * time.Second
)

// drain gives each connection its turn, evenly spaced, so that all loops together let
// DrainRate go in a second. It works in steps, between which the loop serves.
//
// A client is told at its turn and not before [r]: all told at the start, each to leave at
// a random moment before its turn, a quarter of them would go in the first fifteenth of the
// drain, at almost four times the rate.
func (k *keeper) drain() {
	now := k.now()
	every := time.Second * time.Duration(k.srv.cfg.Loops) / time.Duration(k.srv.cfg.DrainRate)
	end := min(k.drainNext+drainStep, len(k.conns))
	for _, c := range k.conns[k.drainNext:end] {
		if c == nil || c.state == stHandshake || c.state >= stClosing {
			continue // a handshake is answered with 503 when it is complete
		}
		k.drained++
		c.sess.drainAt = now.after(every * time.Duration(k.drained))
		c.set(fDraining)
		c.rearm()
	}
	k.drainNext = end
	if end < len(k.conns) {
		k.loop.Post(message{kind: mDrain})
	}
}

// takeTurn is called when drainAt has come: an open connection is told first.
func (c *Conn) takeTurn(now stamp) {
	switch {
	case c.state == stOpen && !c.has(fTold):
		c.set(fTold)
		c.sess.drainAt = now.after(leaveBy)
		c.k.layer.drains(c, leaveWithin)
	case c.has(fInFlight):
		// Its frame first: published closes, and the uplink bounds the wait.
	default:
		c.close(EndDrain, "the edge goes away")
	}
}

// hadTurn reports whether c was told and its time is over.
func (c *Conn) hadTurn(now stamp) bool {
	return c.has(fTold) && c.sess.drainAt.reached(now)
}

// cut ends what a drain did not get to in its time.
func (k *keeper) cut() {
	for _, c := range k.conns {
		if c == nil {
			continue
		}
		c.refuse(handshake.RefuseDraining) // does nothing after the handshake
		c.close(EndDrain, "the edge goes away")
		c.flush()
		c.closeSocket()
		c.settle()
	}
}
