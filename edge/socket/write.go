package socket

import (
	"encoding/binary"
	"errors"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// wouldBlock reports that a descriptor has nothing to give or takes nothing now.
func wouldBlock(err error) bool { return errors.Is(err, unix.EAGAIN) }

// send queues one frame; it is written at the end of the turn together with what else
// the turn brings. payload is copied. A reader that lags too far behind is closed.
func (c *Conn) send(op ws.OpCode, payload []byte) {
	if c.state >= stClosing {
		return
	}
	n := len(payload) + 10
	if w := c.w; w != nil && w.out != nil && len(w.out)-w.outAt+n > c.pending() {
		if c.flush(); c.state >= stClosing {
			return
		}
		if w = c.w; w != nil && w.out != nil && len(w.out)-w.outAt+n > c.pending() {
			c.close(EndSlow, "reads too slowly")
			return
		}
	}
	if !c.queue(op, payload) {
		c.close(EndMemory, faultMemory.text)
	}
}

// pending is the most bytes that may wait for the peer: few before it has logged in.
func (c *Conn) pending() int {
	if most := c.k.srv.cfg.Limits.Pending; c.state >= stOpen || most < firstPending {
		return most
	}
	return firstPending
}

const firstPending = 4 << 10

// queue appends one frame to out, whatever the state. It reports false when the budget
// is used up.
func (c *Conn) queue(op ws.OpCode, payload []byte) bool {
	out := c.room(len(payload) + 10)
	if out == nil {
		return false
	}
	c.w.out = append(appendHead(out, op, len(payload)), payload...)
	c.k.add(nFramesOut, 1)
	return true
}

// queueRaw appends bytes that are no frame. It reports false when the budget is used up.
func (c *Conn) queueRaw(b []byte) bool {
	out := c.room(len(b))
	if out != nil {
		c.w.out = append(out, b...)
	}
	return out != nil
}

// room returns out with room for n bytes, and marks the connection for TurnEnd.
func (c *Conn) room(n int) []byte {
	w := c.busy()
	if w.outAt > len(w.out)/4 && cap(w.out)-len(w.out) < n {
		// Rather than growing, drop whole frames that are written; not for a few bytes.
		if start := frameStart(w.out, w.outAt, false); start > 0 {
			w.out = w.out[:copy(w.out, w.out[start:])]
			w.outAt -= start
		}
	}
	out := c.k.pool.grow(w.out, n)
	if out == nil {
		return nil
	}
	w.out = out
	if !c.has(fDirty) {
		c.set(fDirty)
		c.k.dirty = append(c.k.dirty, c)
	}
	return out
}

// appendHead appends the header of an unmasked, unfragmented frame: RFC 6455 section 5.2.
func appendHead(b []byte, op ws.OpCode, n int) []byte {
	b = append(b, 0x80|byte(op))
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

// frameStart walks over the frames of out, which starts at a frame's start, and returns
// the start of the frame that holds byte at; with end, the end of that frame unless at
// is the start of one.
func frameStart(out []byte, at int, end bool) int {
	for i := 0; i < len(out); {
		n := int(out[i+1])
		head := 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(out[i+2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(out[i+2:])), 10
		}
		next := i + head + n
		if at == i || !end && at < next {
			return i
		}
		if at < next {
			return next
		}
		i = next
	}
	return len(out)
}

// flush writes what is queued, unless the peer is known to take nothing now.
func (c *Conn) flush() {
	if c.w == nil || c.w.out == nil || c.has(fBlocked) {
		return
	}
	c.write()
}

// write writes once. What the kernel does not take waits for writable.
func (c *Conn) write() {
	w := c.w
	n, err := c.k.loop.Write(c.key, w.out[w.outAt:])
	if err != nil && !wouldBlock(err) {
		c.lost()
		return
	}
	c.k.add(nBytesOut, n)
	w.outAt += n
	if w.outAt == len(w.out) {
		c.k.pool.give(w.out)
		w.out, w.outAt = nil, 0
		c.written()
		return
	}
	if n > 0 || !c.has(fBlocked) {
		w.moved = c.k.now()
	}
	if !c.has(fBlocked) {
		c.set(fBlocked)
		c.k.loop.Want(c.key, !c.has(fReadOff), true)
		c.rearm()
	}
}

// written follows when everything is written.
func (c *Conn) written() {
	if c.has(fBlocked) {
		c.drop(fBlocked)
		c.k.loop.Want(c.key, !c.has(fReadOff), false)
	}
	if c.has(fShut) {
		c.k.loop.ShutdownWrite(c.key)
	}
}

// writable goes on where write stopped.
func (c *Conn) writable() {
	if c.w != nil && c.w.out != nil {
		c.write()
	}
}
