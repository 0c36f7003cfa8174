package socket

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// parser takes WebSocket messages out of a stream of bytes that may be cut anywhere. Its
// zero value is at rest. It unmasks in place, holds bytes only while a message or a
// control frame is incomplete, and fails as soon as the bytes seen cannot become a valid
// message (RFC 6455 sections 5 and 8.1).
type parser struct {
	head  [maxHead]byte // of the frame that is read
	headN uint8

	inFrame bool // the head is whole, the payload is being read
	fin     bool
	op      ws.OpCode
	mask    [4]byte
	size    int // bytes of the frame's payload
	got     int // bytes of it that were taken

	msgOp ws.OpCode // of the message that is assembled; 0: none
	frags int       // frames of it
	msg   []byte    // its payload so far, from buffers
	ctl   []byte    // payload so far of a control frame, from buffers
	text  utf8Check
}

// maxHead is the longest frame header: 2 bytes, 8 of length, 4 of mask.
const maxHead = 14

// bounds is what a message is held to.
type bounds struct {
	maxMessage   int // bytes of payload, all fragments together
	maxFragments int
}

// event is a whole message or control frame. data is valid until the next call of next
// or release.
type event struct {
	op   ws.OpCode // 0: nothing yet
	data []byte
}

// resting reports whether no message and no frame is incomplete.
func (p *parser) resting() bool { return p.between() && p.msgOp == 0 }

// between reports whether no frame is incomplete.
func (p *parser) between() bool { return p.headN == 0 && !p.inFrame }

// next takes bytes from b, which it may change, until a frame is complete or b is used
// up, and returns how many it took.
func (p *parser) next(b []byte, lim bounds, pool *buffers) (used int, ev event, f *fault) {
	p.releaseDone(pool)
	if !p.inFrame {
		n, ok, f := p.header(b, lim)
		used = n
		if !ok || f != nil {
			return used, event{}, f
		}
	}
	n := min(len(b)-used, p.size-p.got)
	chunk := b[used : used+n]
	used += n
	ws.Cipher(chunk, p.mask, p.got)
	p.got += n
	if p.op.IsControl() {
		ev, f = p.control(chunk, pool)
	} else {
		ev, f = p.data(chunk, pool)
	}
	return used, ev, f
}

// header takes the bytes of a frame's head. Rules that its first two bytes break are
// reported without waiting for the rest.
func (p *parser) header(b []byte, lim bounds) (used int, ok bool, f *fault) {
	for {
		need := 2
		if p.headN >= 2 {
			need = headSize(p.head[1])
		}
		if int(p.headN) == need && need > 2 {
			break
		}
		n := copy(p.head[p.headN:need], b[used:])
		used += n
		p.headN += uint8(n)
		if int(p.headN) < need {
			return used, false, nil
		}
		if need == 2 {
			if f := checkHead(p.head[0], p.head[1], p.msgOp != 0); f != nil {
				return used, false, f
			}
		}
	}
	return used, true, p.open(lim)
}

// headSize returns the bytes of a masked frame's head by its second byte.
func headSize(second byte) int {
	switch second & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// checkHead: the rules of RFC 6455 section 5.2 to 5.5 that the first two bytes can break.
func checkHead(first, second byte, assembling bool) *fault {
	op := ws.OpCode(first & 0x0f)
	switch {
	case first&0x70 != 0:
		// "MUST be 0 unless an extension is negotiated": none ever is.
		return faultReserved
	case second&0x80 == 0:
		// "The server MUST close the connection upon receiving a frame that is not masked."
		return faultUnmasked
	case op.IsControl():
		switch {
		case op.IsReserved():
			return faultOpCode
		case first&0x80 == 0:
			// "Control frames themselves MUST NOT be fragmented."
			return faultControlFragment
		case second&0x7f > ws.MaxControlFramePayloadSize:
			return faultControlSize
		}
		return nil
	case op == ws.OpContinuation && !assembling:
		return faultContinuation
	case op == ws.OpContinuation:
		return nil
	case op.IsReserved():
		return faultOpCode
	case assembling:
		// "the fragments of one message MUST NOT be interleaved with those of another"
		return faultInterleaved
	}
	return nil
}

// open starts the payload of the frame whose head is whole.
func (p *parser) open(lim bounds) *fault {
	h := p.head[:p.headN]
	p.fin, p.op = h[0]&0x80 != 0, ws.OpCode(h[0]&0x0f)
	length := uint64(h[1] & 0x7f)
	switch length {
	case 126:
		if length = uint64(binary.BigEndian.Uint16(h[2:])); length < 126 {
			return faultLength
		}
	case 127:
		length = binary.BigEndian.Uint64(h[2:])
		if length>>63 != 0 || length < 1<<16 {
			// "the most significant bit MUST be 0"; "the minimal number of bytes MUST be used"
			return faultLength
		}
	}
	copy(p.mask[:], h[len(h)-4:])
	if !p.op.IsControl() {
		if length > uint64(max(lim.maxMessage-len(p.msg), 0)) {
			return faultTooLarge
		}
		if p.op != ws.OpContinuation {
			p.msgOp, p.frags, p.text = p.op, 0, utf8Check{}
		}
		if p.frags++; p.frags > lim.maxFragments {
			return faultFragments
		}
	}
	p.size, p.got, p.inFrame, p.headN = int(length), 0, true, 0
	return nil
}

func (p *parser) control(chunk []byte, pool *buffers) (event, *fault) {
	if len(chunk) < p.size { // not whole in one piece
		if p.ctl == nil {
			if p.ctl = pool.take(p.size); p.ctl == nil {
				return event{}, faultMemory
			}
		}
		p.ctl = append(p.ctl, chunk...)
		chunk = p.ctl
	}
	if p.got < p.size {
		return event{}, nil
	}
	p.inFrame = false
	return event{op: p.op, data: chunk}, nil
}

func (p *parser) data(chunk []byte, pool *buffers) (event, *fault) {
	if p.fin && len(chunk) == p.size && p.frags == 1 { // fast path: the message is whole in one piece
		if p.op == ws.OpText && !utf8.Valid(chunk) {
			return event{}, faultUTF8
		}
		p.inFrame, p.msgOp = false, 0
		return event{op: p.op, data: chunk}, nil
	}
	if p.msgOp == ws.OpText && !p.text.add(chunk) {
		return event{}, faultUTF8
	}
	if len(chunk) > 0 {
		grown := pool.grow(p.msg, len(chunk))
		if grown == nil {
			return event{}, faultMemory
		}
		p.msg = append(grown, chunk...)
	}
	if p.got < p.size {
		return event{}, nil
	}
	p.inFrame = false
	if !p.fin {
		return event{}, nil
	}
	if p.msgOp == ws.OpText && !p.text.whole() {
		return event{}, faultUTF8
	}
	op := p.msgOp
	p.msgOp = 0
	return event{op: op, data: p.msg}, nil
}

// releaseDone gives back the bytes of events that were handed out before.
func (p *parser) releaseDone(pool *buffers) {
	if p.ctl != nil && !(p.inFrame && p.op.IsControl()) {
		pool.give(p.ctl)
		p.ctl = nil
	}
	if p.msg != nil && p.msgOp == 0 {
		pool.give(p.msg)
		p.msg = nil
	}
}

// release gives all bytes back.
func (p *parser) release(pool *buffers) {
	pool.give(p.ctl)
	pool.give(p.msg)
	*p = parser{}
}
