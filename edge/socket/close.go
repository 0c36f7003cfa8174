package socket

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// close starts the close handshake from our side: what is queued, then a close frame,
// then the peer's close frame or the end of its patience (Times.Close). text fits a
// close frame (≤ 123 bytes).
func (c *Conn) close(end End, text string) {
	if c.state >= stClosing {
		return
	}
	c.over(end)
	if end == EndSlow || c.has(fBlocked) {
		c.cutQueue()
	}
	if end.framing() {
		c.deafen()
	}
	c.queueClose(ends[end].code, text)
	c.rearm()
}

// deafen gives up on what the peer sends: behind a broken frame nothing can be read,
// behind a close frame nothing counts. The FIN tells the peer that it is over, and
// reading on keeps the kernel from answering it with a reset, which would destroy what
// is on its way: our close frame, and all that was written before it.
func (c *Conn) deafen() {
	c.set(fDeaf | fShut)
	c.dropRest()
}

// over records why the connection ends and takes it out of the layer above.
func (c *Conn) over(end End) {
	c.end = end
	c.arrived()
	c.unlimit()
	c.state, c.deadline = stClosing, c.k.now().after(c.k.srv.cfg.Times.Close)
	c.k.srv.metrics.closed[end].Inc()
	c.k.layer.ended(c)
}

// fail closes the connection for a fault of the peer.
func (c *Conn) fail(f *fault) {
	if c.state < stClosing {
		c.close(f.end, f.text)
		return
	}
	// Our close frame is on its way already; the peer's will not be found any more.
	if c.deafen(); c.state == stClosing && (c.w == nil || c.w.out == nil) {
		c.k.loop.ShutdownWrite(c.key)
	}
}

func (c *Conn) queueClose(code ws.StatusCode, text string) {
	body := c.k.tmp[:0]
	if code != 0 && code != ws.StatusNoStatusRcvd {
		body = append(binary.BigEndian.AppendUint16(body, uint16(code)), text[:min(len(text), 123)]...)
	}
	if c.k.tmp = body; !c.queue(ws.OpClose, body) {
		c.deafen() // no memory for a close frame: the FIN must do
		c.k.loop.ShutdownWrite(c.key)
	}
}

// cutQueue drops the frames that wait, but for the one that is partly written, and gives
// their memory back: a reader that lags gets its close frame next, and resume repairs
// the rest.
func (c *Conn) cutQueue() {
	w := c.w
	if w == nil || w.out == nil {
		return
	}
	start, end := frameStart(w.out, w.outAt, false), frameStart(w.out, w.outAt, true)
	left := w.out[start:end]
	w.outAt -= start
	small := c.k.pool.take(len(left) + 2 + ws.MaxControlFramePayloadSize)
	if small == nil {
		w.out = w.out[:copy(w.out, left)]
		return
	}
	small = append(small, left...)
	c.k.pool.give(w.out)
	w.out = small
}

// peerCloses takes a close frame: RFC 6455 section 5.5.1.
func (c *Conn) peerCloses(body []byte) {
	code, f := closePayload(body)
	if c.state == stClosing {
		c.set(fDeaf)
		c.closeSocket() // the answer to ours
		return
	}
	if f != nil {
		c.fail(f)
		return
	}
	c.over(EndClient)
	c.deafen() // nothing counts behind a close frame
	c.queueClose(code, "")
	c.flush()
	if c.state != stClosed {
		c.rearm()
	}
}

// lost takes the end of the stream, or an error of the socket.
func (c *Conn) lost() {
	switch {
	case c.state == stHandshake:
		c.k.add(nHandshakesLost, 1)
	case c.state < stClosing:
		c.over(EndLost)
	}
	c.closeSocket()
}

// closeSocket gives the descriptor back. The connection stays for as long as the uplink
// holds an event of it.
func (c *Conn) closeSocket() {
	if c.state == stClosed {
		return
	}
	c.state = stClosed
	c.set(fDeaf)
	c.k.forget(c)
	if w := c.w; w != nil {
		c.dropRest()
		c.k.pool.give(w.out)
		w.out, w.outAt = nil, 0
		w.parser.release(&c.k.pool)
	}
	c.finish()
}

// finish counts the connection as gone once nothing of it is at the uplink.
func (c *Conn) finish() {
	if c.state == stClosed && !c.has(fInFlight) {
		c.k.gone()
	}
}
