package socket

import (
	"time"

	"github.com/wirepost/wirepost/edge/handshake"
)

const drainStep = 256 // connections that one message of a drain looks at

// drain gives each connection its time to go, evenly spaced, so that all loops together
// close DrainRate a second, and tells it. It works in steps, between which the loop
// serves.
func (k *keeper) drain() {
	now := k.now()
	every := time.Second * time.Duration(k.srv.cfg.Loops) / time.Duration(k.srv.cfg.DrainRate)
	end := min(k.drainNext+drainStep, len(k.conns))
	for _, c := range k.conns[k.drainNext:end] {
		if c == nil || c.state == stHandshake || c.state >= stClosing {
			continue // a handshake is answered with 503 when it is complete
		}
		k.drained++
		d := every * time.Duration(k.drained)
		c.sess.drainAt = now.after(d)
		c.set(fDraining)
		k.layer.drains(c, d.Milliseconds())
		c.rearm()
		c.settle()
	}
	k.drainNext = end
	if end < len(k.conns) {
		k.loop.Post(message{kind: mDrain})
	}
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
