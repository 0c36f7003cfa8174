// Package differential lets the edge and gorilla/websocket, on net/http, read the same
// bytes: what the edge accepts they must accept, and must understand alike. Where the
// edge is stricter, that is one of a short list of points.
//
// Both are run whole, as echo servers: the edge's rooms over loopback, the other one over
// memory. The module of the edge does not know the other one.
package differential

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/conformance"
)

// heard is what a server sent for a stream of frames.
type heard struct {
	events []conformance.Event // before the close frame
	code   int                 // of the close frame; noClose: none came
	reason string
}

const noClose = -1

// listen reads until a close frame or the end of the stream.
func listen(r io.Reader) (heard, error) {
	h := heard{code: noClose}
	for frames := conformance.NewReader(r); ; {
		ev, err := frames.Next()
		switch {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return h, err
		case ev.Op == ws.OpClose:
			code, reason, err := ev.Close()
			h.code, h.reason = int(code), reason
			return h, err
		}
		h.events = append(h.events, ev)
	}
}

// edge is one server for all inputs of a process. It ends with it.
var edge = sync.OnceValues(func() (*conformance.Echo, error) { return conformance.StartEcho("127.0.0.1:0", nil) })

// byEdge sends the stream to the edge's rooms, then the end of TCP.
func byEdge(stream []byte) (h heard, err error) {
	e, err := edge()
	if err != nil {
		return h, err
	}
	c, err := net.Dial("tcp", e.Addr)
	if err != nil {
		return h, err
	}
	conn := c.(*net.TCPConn)
	// A reset at the end: thousands of connections a second would use up all ports, each
	// of which the kernel keeps for a minute after an orderly end.
	defer func() { _ = conn.SetLinger(0); _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return h, err
	}
	r, err := conformance.Open(conn)
	if err != nil {
		return h, err
	}
	if _, err := conn.Write(stream); err != nil {
		return h, err
	}
	if err := conn.CloseWrite(); err != nil {
		return h, err
	}
	return listen(r)
}

// byGorilla lets gorilla/websocket read the stream.
func byGorilla(stream []byte) (heard, error) {
	m, err := answered(conformance.Request("localhost"), stream)
	if err != nil {
		return heard{}, err
	}
	r := bufio.NewReader(&m.out)
	if err := conformance.CheckAnswer(r); err != nil {
		return heard{}, err
	}
	return listen(r)
}

// stricter are the close frames with which the edge refuses what the other one takes.
var stricter = map[string]string{
	"a length that is not minimal, or over 63 bits": "RFC 6455 section 5.2: the minimal number of bytes MUST be used; the most significant bit MUST be 0",
	"a close frame without a proper code":           "section 5.5.1: a body begins with a code of two bytes",
}

// badGateway is a close code of IANA's registry that the other one does not know.
const badGateway = 1014

// compare says what is wrong with what the edge made of a stream, if anything is.
func compare(edge, other heard) error {
	n := len(edge.events)
	prefix := n <= len(other.events) && slices.Equal(edge.events, other.events[:n])
	same := prefix && n == len(other.events)
	switch {
	case same && edge.code == other.code:
		return nil
	case same && edge.code == badGateway && other.code == int(ws.StatusProtocolError):
		return nil
	case prefix && edge.code == int(ws.StatusProtocolError) && stricter[edge.reason] != "":
		return nil
	case prefix && edge.code == int(ws.StatusInvalidFramePayloadData) && sooner(other, n):
		return nil
	case same && edge.code == int(ws.StatusMessageTooBig) && other.code == noClose:
		// A length near 2⁶³ overflows the other one's sum; it drops TCP without a word.
		return nil
	}
	return fmt.Errorf("the edge: %s\ngorilla: %s", edge, other)
}

// sooner reports whether the other one can have failed later for the same text: it
// looks at a message when it is whole, and until then answers pings, finds another fault,
// or the stream ends. For a reason that is no UTF-8 it sends 1002 where the edge sends 1007.
func sooner(other heard, n int) bool {
	for _, ev := range other.events[n:] {
		if ev.Op != ws.OpPong {
			return false
		}
	}
	return true
}

func (h heard) String() string {
	var b strings.Builder
	for _, ev := range h.events {
		fmt.Fprintf(&b, "%s, ", ev)
	}
	if h.code == noClose {
		return b.String() + "end of TCP"
	}
	return b.String() + fmt.Sprintf("close %d %q", h.code, h.reason)
}

func differ(t *testing.T, stream []byte) {
	t.Helper()
	mine, err := byEdge(stream)
	if err != nil {
		t.Fatalf("the edge: %v", err)
	}
	other, err := byGorilla(stream)
	if err != nil {
		t.Fatalf("gorilla: %v", err)
	}
	if err := compare(mine, other); err != nil {
		t.Fatal(err)
	}
}

// largest is the longest stream that is tried: most of what can go wrong fits.
const largest = 16 << 10

// seeds are the streams of all cases that are small, and some that no case has.
func seeds() [][]byte {
	var all [][]byte
	for _, c := range conformance.Cases() {
		if c.Group() == 9 {
			continue
		}
		var stream []byte
		for _, part := range c.Script().Parts {
			stream = append(stream, part.Send...)
		}
		if len(stream) <= largest {
			all = append(all, stream)
		}
	}
	return append(all,
		[]byte("\x82\xfe\x00\x7d\x00\x00\x00\x00"),                         // 125 bytes in a length of 16 bits
		[]byte("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00"), // 65535 in 64
		[]byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), // over 63 bits
		[]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), // 63 bits
		[]byte("\x82\xff\x00\x00\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00"), // a byte too large
		[]byte("\x81\x05hello"),                                                                     // not masked
		[]byte("\x88\x82\x00\x00\x00\x00\x03\xf4"),                                                  // close 1012
		[]byte("\x88\x82\x00\x00\x00\x00\x03\xf5"),                                                  // close 1013
		[]byte("\x88\x82\x00\x00\x00\x00\x03\xf6"),                                                  // close 1014
		[]byte("\x88\x82\x00\x00\x00\x00\x03\xf8"),                                                  // close 1016
		[]byte("\x02\x81\x00\x00\x00\x00a\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), // an overflow by a fragment
	)
}

// TestFrames holds the seeds to the comparison, and shows that it can fail.
func TestFrames(t *testing.T) {
	for i, stream := range seeds() {
		t.Run(fmt.Sprint(i), func(t *testing.T) { differ(t, stream) })
	}
}

func TestCompareCanFail(t *testing.T) {
	text := func(s string) conformance.Event { return conformance.Event{Op: ws.OpText, Data: s} }
	pong := conformance.Event{Op: ws.OpPong}
	one := []conformance.Event{text("a")}
	for name, c := range map[string]struct{ edge, other heard }{
		"another echo":            {heard{one, 1000, ""}, heard{[]conformance.Event{text("b")}, 1000, ""}},
		"an echo too few":         {heard{nil, 1000, ""}, heard{one, 1000, ""}},
		"an echo too many":        {heard{one, 1000, ""}, heard{nil, 1000, ""}},
		"another code":            {heard{one, 1000, ""}, heard{one, 1001, ""}},
		"accepted, there refused": {heard{one, noClose, ""}, heard{one, 1002, ""}},
		"1012, there refused":     {heard{nil, 1012, ""}, heard{nil, 1002, ""}},
		"refused, there accepted": {heard{one, 1002, "reserved opcode"}, heard{one, noClose, ""}},
		"text there was taken":    {heard{nil, 1007, ""}, heard{[]conformance.Event{pong, text("b")}, noClose, ""}},
		"stricter after more":     {heard{one, 1002, "a close frame without a proper code"}, heard{nil, 1000, ""}},
	} {
		if compare(c.edge, c.other) == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
}

// FuzzFrames: for any bytes behind the handshake the edge and gorilla/websocket send
// the same, up to the points in stricter.
func FuzzFrames(f *testing.F) {
	for _, stream := range seeds() {
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) <= largest {
			differ(t, stream)
		}
	})
}
