package socket

import (
	"time"

	"github.com/wirepost/wirepost/edge/handshake"
)

// readRequest takes bytes of the HTTP request that opens the WebSocket. One that comes
// in one piece is read where it lies.
func (c *Conn) readRequest(b []byte) {
	var first handshake.Scan
	scan := &first
	if c.w != nil && c.w.rest != nil {
		if c.keepRest(b); c.state != stHandshake {
			return
		}
		b, scan = c.w.rest[c.w.restAt:], &c.w.scan
	}
	if c.has(fHeader) {
		request := c.readHeader(b)
		if request == nil {
			if scan == &first && c.state == stHandshake {
				c.keepRest(b)
			}
			return
		}
		if scan != &first {
			c.w.restAt = len(c.w.rest) - len(request)
		}
		b = request
	}
	end, refused := scan.End(b)
	if refused != nil {
		c.refuse(refused)
		return
	}
	if end > 0 {
		c.open(b[:end], b[end:])
		return
	}
	if scan == &first {
		if c.keepRest(b); c.state == stHandshake {
			c.w.scan = first
		}
	}
}

// open answers a whole request. behind are the bytes that came after it: frames already.
func (c *Conn) open(request, behind []byte) {
	client, scheme := c.identify(request)
	req, origin, refused := c.k.srv.cfg.Rules.Read(request)
	switch { // an attempt is counted last: any page can make its visitors send what is refused before
	case refused != nil && refused.Reason == handshake.ReasonOrigin:
		c.k.logOrigin(origin, client, scheme)
	case refused != nil:
	case c.k.srv.draining.Load():
		refused = handshake.RefuseDraining
	case !c.k.mayTry(client):
		c.k.logAddress(client, scheme)
		refused = handshake.RefuseAddress
	}
	if refused != nil {
		c.refuse(refused)
		return
	}
	c.k.tmp = req.Append(c.k.tmp[:0])
	if !c.queueRaw(c.k.tmp) {
		c.refuse(handshake.RefuseMemory)
		return
	}
	if c.flush(); c.state == stClosed || c.w == nil || c.w.out != nil { // a fresh socket takes 200 bytes, or it is broken
		c.lost()
		return
	}
	c.set(fCounted)
	if scheme == handshake.SchemeHTTP {
		c.k.add(nInClear, 1)
	}
	c.k.add(nOpened, 1)
	c.k.open.Add(1)
	c.user = req.User
	c.k.layer.opened(c, req.Token)
	c.rearm()
	if c.w.rest != nil {
		c.w.restAt = len(c.w.rest) - len(behind)
		c.resume()
	} else if len(behind) > 0 {
		c.feed(behind)
	}
}

// refuse answers instead of opening, and ends the connection.
func (c *Conn) refuse(r *handshake.Refusal) {
	if c.state != stHandshake {
		return
	}
	c.k.srv.metrics.refused[r.Reason].Inc()
	c.arrived()
	c.state, c.deadline = stClosing, c.k.now().after(min(c.k.srv.cfg.Times.Close, time.Second))
	c.set(fDeaf | fShut)
	c.dropRest()
	c.k.tmp = r.Append(c.k.tmp[:0])
	if !c.queueRaw(c.k.tmp) { // no buffer: a fresh socket takes it at once
		_, _ = c.k.loop.Write(c.key, c.k.tmp)
		c.k.loop.ShutdownWrite(c.key)
	}
	c.rearm()
}

// turnAway answers a fresh connection and closes it at once: there is no descriptor to
// spare for one that waits until its peer has read. What it has sent is read first, or
// the kernel would answer with a reset.
func (c *Conn) turnAway(r *handshake.Refusal) {
	c.k.srv.metrics.refused[r.Reason].Inc()
	_, _ = c.k.loop.Read(c.key, c.k.scratch)
	c.k.tmp = r.Append(c.k.tmp[:0])
	_, _ = c.k.loop.Write(c.key, c.k.tmp)
	c.closeSocket()
}
