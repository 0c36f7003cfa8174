package conformance

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/gobwas/ws"
)

// tampers change what a server that is right sends. Each must fail every case in which
// it finds something to change.
var tampers = []struct {
	name   string
	change func(ws.Frame) []ws.Frame // nil: the frame stays as it is
}{
	{"a byte of an echo differs", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode.IsControl() {
			return nil
		}
		return []ws.Frame{ws.NewFrame(f.Header.OpCode, true, flipped(f.Payload))}
	}},
	{"text comes back as binary and binary as text", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode.IsControl() {
			return nil
		}
		return []ws.Frame{ws.NewFrame(f.Header.OpCode^3, true, f.Payload)}
	}},
	{"an echo comes twice", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode.IsControl() {
			return nil
		}
		return []ws.Frame{f, f}
	}},
	{"an echo is masked", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode.IsControl() {
			return nil
		}
		return []ws.Frame{ws.MaskFrame(f)}
	}},
	{"a pong differs", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode != ws.OpPong {
			return nil
		}
		return []ws.Frame{ws.NewFrame(ws.OpPong, true, flipped(f.Payload))}
	}},
	{"a pong that nobody asked for", func(f ws.Frame) []ws.Frame {
		return []ws.Frame{ws.NewPongFrame(nil), f}
	}},
	{"the close code differs", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode != ws.OpClose {
			return nil
		}
		code := uint16(1001)
		if len(f.Payload) >= 2 {
			code = binary.BigEndian.Uint16(f.Payload) ^ 1
		}
		return []ws.Frame{ws.NewCloseFrame(binary.BigEndian.AppendUint16(nil, code))}
	}},
	{"the close frame is lost", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode != ws.OpClose {
			return nil
		}
		return []ws.Frame{}
	}},
	{"a frame behind the close frame", func(f ws.Frame) []ws.Frame {
		if f.Header.OpCode != ws.OpClose {
			return nil
		}
		return []ws.Frame{f, ws.NewTextFrame([]byte("late"))}
	}},
}

// flipped returns a payload that is another one.
func flipped(b []byte) []byte {
	if len(b) == 0 {
		return []byte("x")
	}
	b[len(b)-1] ^= 1
	return b
}

// TestEveryVerdictCanFail: a case that no wrong server fails proves nothing.
func TestEveryVerdictCanFail(t *testing.T) {
	addr := echo(t, nil).Addr
	failures := 0
	for _, c := range Cases() {
		if skipBytes(c) {
			continue
		}
		for _, tamper := range tampers {
			between := &tampered{change: tamper.change}
			err := play(addr, c.Script(), patience, func(r io.Reader) io.Reader {
				between.r = r
				return between
			})
			switch {
			case between.changed && err == nil:
				t.Errorf("%s passes although %s", c.ID, tamper.name)
			case !between.changed && err != nil:
				t.Errorf("%s: %v", c.ID, err)
			case between.changed:
				failures++
			}
		}
	}
	t.Logf("%d failures were seen", failures)
	if failures < 4*(301-54) { // a pong too many, and three about the close frame
		t.Errorf("only %d failures were seen", failures)
	}
}

// tampered hands on what r brings, frame by frame, changed.
type tampered struct {
	r       io.Reader
	change  func(ws.Frame) []ws.Frame
	changed bool
	rest    bytes.Buffer // of what was changed
}

func (t *tampered) Read(b []byte) (int, error) {
	for t.rest.Len() == 0 {
		h, err := ws.ReadHeader(t.r)
		if err != nil {
			return 0, err
		}
		f := ws.Frame{Header: h, Payload: make([]byte, h.Length)} // of our own server
		if _, err := io.ReadFull(t.r, f.Payload); err != nil {
			return 0, err
		}
		list := t.change(f)
		if list == nil {
			list = []ws.Frame{f}
		} else {
			t.changed = true
		}
		for _, f := range list {
			if err := ws.WriteFrame(&t.rest, f); err != nil {
				return 0, err
			}
		}
	}
	return t.rest.Read(b)
}
