package conformance

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/gobwas/ws"
)

// Case is one case of the suite.
type Case struct {
	ID     string // the suite's number
	script func() Script
}

// Script returns what is sent and what must come of it. It is made anew by each call:
// some hold 16 MiB.
func (c Case) Script() Script { return c.script() }

// Group returns the first part of the number.
func (c Case) Group() int {
	group, _, _ := strings.Cut(c.ID, ".")
	n, _ := strconv.Atoi(group)
	return n
}

// Script is one connection from its first frame to its end. The server must answer with
// what the parts want, then a close frame of Code, then the end of TCP, and nothing else.
type Script struct {
	Parts []Part
	Code  ws.StatusCode // 0: a close frame without a code
}

// Part is sent, then what it wants must arrive before the next part is sent.
type Part struct {
	Send  []byte
	Want  []Event
	Quiet bool // instead: nothing may arrive
}

// Cases returns all cases in the suite's order.
func Cases() []Case {
	var all []Case
	for _, group := range []func() []Case{framing, pings, reserved, opcodes, fragments, texts, closes, sizes, fragmented} {
		all = append(all, group()...)
	}
	return all
}

// The first byte of a frame.
const (
	more     = 0x00 // FIN is not set: "more" + opcode
	last     = 0x80
	opCont   = byte(ws.OpContinuation)
	opText   = byte(ws.OpText)
	opBinary = byte(ws.OpBinary)
	opClose  = byte(ws.OpClose)
	opPing   = byte(ws.OpPing)
	opPong   = byte(ws.OpPong)
)

// key masks every frame. No two of its bytes are alike, so that a wrong offset shows.
var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// frame returns a masked frame: RFC 6455 section 5.2. Nothing is checked.
func frame(first byte, payload string) []byte {
	b := make([]byte, 0, len(payload)+14)
	b = append(b, first)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, key[:]...)
	at := len(b)
	b = append(b, payload...)
	for i := range b[at:] {
		b[at+i] ^= key[i%4]
	}
	return b
}

// closeFrame has a code and a reason.
func closeFrame(code ws.StatusCode, reason string) []byte {
	return frame(last|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// inFragments cuts a message into frames of size bytes of payload. Like the suite it
// ends with an empty frame where the last one is full.
func inFragments(op byte, payload string, size int) []byte {
	if size >= len(payload) {
		return frame(last|op, payload)
	}
	b := make([]byte, 0, len(payload)+14*(len(payload)/size+1))
	for at := 0; ; at += size {
		first := op
		if at > 0 {
			first = opCont
		}
		if at+size > len(payload) {
			return append(b, frame(last|first, payload[at:])...)
		}
		b = append(b, frame(more|first, payload[at:at+size])...)
	}
}

func join(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

func text(s string) Event      { return Event{ws.OpText, s} }
func binaryOf(s string) Event  { return Event{ws.OpBinary, s} }
func pongOf(s string) Event    { return Event{ws.OpPong, s} }
func want(ev ...Event) []Event { return ev }

// clean is a case whose stream is right: events come back, then the client closes.
func clean(id string, stream []byte, events []Event) Case {
	return Case{id, func() Script { return answered(Part{Send: stream, Want: events}) }}
}

// ends is a case whose stream ends the connection with code, behind events.
func ends(id string, stream []byte, events []Event, code ws.StatusCode) Case {
	return Case{id, func() Script { return Script{Parts: []Part{{Send: stream, Want: events}}, Code: code} }}
}

// answered closes with 1000 when every part has its answer.
func answered(parts ...Part) Script {
	return Script{Parts: append(parts, Part{Send: closeFrame(1000, "")}), Code: 1000}
}
