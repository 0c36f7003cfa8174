package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	finBit, rsvBits, opBits = 0x80, 0x70, 0x0F // of the first byte
	maskBit, lenBits        = 0x80, 0x7F       // of the second
	maxControl              = 125
)

// ErrProtocol is in End.Err when the server broke RFC 6455.
var ErrProtocol = errors.New("the server broke the WebSocket protocol")

// header is the beginning of a frame.
type header struct {
	fin  bool
	op   byte
	size int // of the header
	body int // bytes that follow
}

// parseHeader returns size 0 when b holds less than a header.
func parseHeader(b []byte, limit int) (h header, err error) {
	if len(b) < 2 {
		return h, nil
	}
	h.fin, h.op = b[0]&finBit != 0, b[0]&opBits
	size, body := 2, uint64(b[1]&lenBits)
	switch body {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	switch {
	case b[0]&rsvBits != 0:
		return h, fmt.Errorf("%w: reserved bits", ErrProtocol)
	case b[1]&maskBit != 0:
		return h, fmt.Errorf("%w: masked frame", ErrProtocol)
	case h.op >= opClose && (!h.fin || body > maxControl):
		return h, fmt.Errorf("%w: control frame that is long or fragmented", ErrProtocol)
	case len(b) < size:
		return h, nil
	case size == 4:
		body = uint64(binary.BigEndian.Uint16(b[2:]))
	case size == 10:
		body = binary.BigEndian.Uint64(b[2:])
	}
	if body > uint64(limit) {
		return h, fmt.Errorf("%w: frame of %d bytes", ErrProtocol, body)
	}
	h.size, h.body = size, int(body)
	return h, nil
}

// frames works through the whole frames of b and returns the rest. The connection may
// have ended then.
func (n *Conn) frames(b []byte) []byte {
	gen := n.gen
	for {
		h, err := parseHeader(b, n.client.opt.MaxMessage)
		if err != nil {
			n.broken(err)
			return nil
		}
		if h.size == 0 || len(b) < h.size+h.body {
			return b
		}
		body := b[h.size : h.size+h.body]
		b = b[h.size+h.body:]
		n.take(h, body)
		if n.gen != gen || n.fd < 0 {
			return nil
		}
	}
}

// take handles one frame. body is valid until it returns.
func (n *Conn) take(h header, body []byte) {
	if n.state == closing && h.op != opClose {
		return // RFC 6455 section 5.5.1: what comes after our close frame is not wanted
	}
	switch h.op {
	case opPing:
		n.writeFrame(opPong, body)
	case opPong:
	case opClose:
		n.closeFrame(body)
	case opText, opBinary, opContinuation:
		n.data(h, body)
	default:
		n.broken(fmt.Errorf("%w: opcode %d", ErrProtocol, h.op))
	}
}

func (n *Conn) data(h header, body []byte) {
	started := n.flags&fragments != 0
	if started != (h.op == opContinuation) {
		n.broken(fmt.Errorf("%w: fragments out of order", ErrProtocol))
		return
	}
	if h.fin && !started {
		n.client.handler.Message(n, h.op == opText, body)
		return
	}
	if !started {
		n.flags |= fragments
		n.flags &^= fragmentText
		if h.op == opText {
			n.flags |= fragmentText
		}
	}
	if len(n.whole)+len(body) > n.client.opt.MaxMessage {
		n.broken(fmt.Errorf("%w: message is too large", ErrProtocol))
		return
	}
	n.whole = append(n.whole, body...)
	if h.fin {
		whole := n.whole
		n.whole = nil
		n.flags &^= fragments
		n.client.handler.Message(n, n.flags&fragmentText != 0, whole)
	}
}

// closeFrame answers the server's close frame; the server closes the connection.
func (n *Conn) closeFrame(body []byte) {
	code, reason := 1005, ""
	if len(body) >= 2 {
		code, reason = int(binary.BigEndian.Uint16(body)), string(body[2:])
	}
	if n.state == closing {
		if n.bye.Err == nil {
			n.bye.Code, n.bye.Reason = code, reason
		}
		return
	}
	n.leave(code, &End{Code: code, Reason: reason})
}

// broken tells the server that it broke the protocol, and ends.
func (n *Conn) broken(err error) {
	if n.state == open {
		n.writeFrame(opClose, []byte{1002 >> 8, 1002 & 0xFF})
	}
	n.end(End{Code: 1002, Local: true, Err: err})
}
