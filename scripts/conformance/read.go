package conformance

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Event is a whole message, or a control frame.
type Event struct {
	Op   ws.OpCode
	Data string
}

// Reader reads what a server sends, and holds it to RFC 6455.
type Reader struct {
	r   *bufio.Reader
	op  ws.OpCode // of the message that is being read in fragments; 0: none
	msg []byte    // so far
}

// NewReader reads frames from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next message, in however many frames it comes, or control frame.
func (r *Reader) Next() (Event, error) {
	for {
		h, err := ws.ReadHeader(r.r)
		if err != nil {
			return Event{}, fmt.Errorf("TCP ends: %w", err)
		}
		state := ws.StateClientSide
		if r.op != 0 {
			state = state.Set(ws.StateFragmented)
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return Event{}, fmt.Errorf("the server sends %+v: %w", h, err)
		}
		if h.Length > LargestMessage {
			return Event{}, fmt.Errorf("the server sends %+v", h)
		}
		body := make([]byte, h.Length)
		if _, err := io.ReadFull(r.r, body); err != nil {
			return Event{}, fmt.Errorf("TCP ends inside a frame: %w", err)
		}
		switch {
		case h.OpCode.IsControl():
			return Event{h.OpCode, string(body)}, nil
		case h.OpCode != ws.OpContinuation:
			r.op = h.OpCode
		}
		if r.msg = append(r.msg, body...); h.Fin {
			ev := Event{r.op, string(r.msg)}
			r.op, r.msg = 0, nil
			return ev, nil
		}
	}
}

// Close returns the code and the reason of a close frame; 0 if it has no code.
func (e Event) Close() (code ws.StatusCode, reason string, err error) {
	switch {
	case e.Op != ws.OpClose:
		return 0, "", fmt.Errorf("a close frame was to come, not %s", e)
	case len(e.Data) == 1:
		return 0, "", errors.New("the close frame holds one byte")
	case len(e.Data) == 0:
		return 0, "", nil
	}
	code, reason = ws.StatusCode(binary.BigEndian.Uint16([]byte(e.Data))), e.Data[2:]
	if !utf8.ValidString(reason) {
		return 0, "", fmt.Errorf("the close frame's reason is %q", reason)
	}
	return code, reason, nil
}

// String shows an event, cut short.
func (e Event) String() string {
	name := map[ws.OpCode]string{ws.OpText: "text", ws.OpBinary: "binary", ws.OpClose: "close", ws.OpPing: "ping", ws.OpPong: "pong"}[e.Op]
	if name == "" {
		name = fmt.Sprintf("opcode %d", e.Op)
	}
	shown := e.Data
	if len(shown) > 40 {
		shown = strings.ToValidUTF8(shown[:40], "?") + "…"
	}
	return fmt.Sprintf("%s of %d bytes %q", name, len(e.Data), shown)
}
