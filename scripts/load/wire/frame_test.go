package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// A million connections are a million of these.
func TestConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 160 {
		t.Errorf("a Conn has %d bytes", n)
	}
}

// recorder notes what comes.
type recorder struct {
	Nop
	got []string
	end *End
}

func (r *recorder) Message(_ *Conn, text bool, b []byte) {
	r.got = append(r.got, fmt.Sprintf("%v %d %x", text, len(b), b[:min(len(b), 64)]))
}
func (r *recorder) Closed(_ *Conn, e End) { r.end = &e }

// openConn is a connection whose handshake is done, on a socket that takes what it writes.
func openConn(t testing.TB, limit int) (*recorder, *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	c, err := New(r, Options{Targets: make([]Target, 1), Conns: 1, MaxMessage: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.release(); _ = unix.Close(fds[1]) })
	n := &c.conns[0]
	c.free, c.counts.Open = noSlot, 1
	n.fd, n.gen, n.state, n.link = int32(fds[0]), 1, open, link{noSlot, noSlot, 0}
	return r, n
}

// feed gives b in pieces of at most size bytes.
func feed(n *Conn, b []byte, size func() int) {
	for len(b) > 0 && n.fd >= 0 {
		k := min(max(size(), 1), len(b))
		n.received(b[:k:k])
		b = b[k:]
	}
}

func frames(t testing.TB, all ...ws.Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, f := range all {
		if err := ws.WriteFrame(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func frame(op ws.OpCode, fin bool, n int) ws.Frame {
	return ws.NewFrame(op, fin, bytes.Repeat([]byte{'x'}, n))
}

func TestAnyCutOfTheBytes(t *testing.T) {
	b := frames(t,
		frame(ws.OpText, true, 5), frame(ws.OpBinary, true, 0), frame(ws.OpText, false, 300), frame(ws.OpPing, true, 125),
		frame(ws.OpContinuation, false, 0), frame(ws.OpContinuation, true, 70_000), frame(ws.OpBinary, true, 126),
		ws.NewCloseFrame(ws.NewCloseFrameBody(4000, "bye")))
	for name, size := range map[string]func() int{
		"whole": func() int { return len(b) }, "byte by byte": func() int { return 1 }, "at random": func() int { return rand.IntN(200) },
	} {
		r, n := openConn(t, 1<<20)
		feed(n, b, size)
		if len(r.got) != 4 || r.got[2][:10] != "true 70300" {
			t.Errorf("%s: %d messages: %.60q", name, len(r.got), r.got)
		}
		if n.state != closing || n.bye.Code != 4000 || n.bye.Reason != "bye" {
			t.Errorf("%s: state %d, %+v", name, n.state, n.bye)
		}
		if n.in != nil || n.out != nil || n.whole != nil {
			t.Errorf("%s: a connection at rest holds buffers: in %d, out %d, whole %d", name, cap(n.in), cap(n.out), cap(n.whole))
		}
	}
}

func TestServerThatBreaksTheProtocol(t *testing.T) {
	for name, b := range map[string][]byte{
		"masked":             frames(t, ws.MaskFrame(frame(ws.OpText, true, 3))),
		"reserved bit":       {0xC1, 0},
		"unknown opcode":     {0x83, 0},
		"unknown control":    {0x8B, 0},
		"long ping":          {0x89, 126, 0, 200},
		"fragmented ping":    {0x09, 0},
		"lone continuation":  frames(t, frame(ws.OpContinuation, true, 1)),
		"text within text":   frames(t, frame(ws.OpText, false, 1), frame(ws.OpText, true, 1)),
		"huge frame":         {0x81, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
		"too large a frame":  frames(t, frame(ws.OpText, true, 2000)),
		"too many fragments": frames(t, frame(ws.OpText, false, 900), frame(ws.OpContinuation, true, 900)),
	} {
		for _, size := range []int{1, len(b)} {
			r, n := openConn(t, 1000)
			feed(n, b, func() int { return size })
			if r.end == nil || !errors.Is(r.end.Err, ErrProtocol) || r.end.Code != 1002 || len(r.got) > 0 {
				t.Errorf("%s: end %+v, messages %q", name, r.end, r.got)
			}
		}
	}
}

// FuzzFrames: whatever comes, and however it is cut, the same messages are found.
func FuzzFrames(f *testing.F) {
	f.Add(frames(f, frame(ws.OpText, true, 5), frame(ws.OpText, false, 2), frame(ws.OpContinuation, true, 130)), uint8(3))
	f.Add([]byte{0x81, 126, 0, 3, 'a', 'b', 'c', 0x88, 2, 3, 0xE8}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		whole, n := openConn(t, 4096)
		feed(n, b, func() int { return len(b) })
		cut, n := openConn(t, 4096)
		feed(n, b, func() int { return int(size) })
		if fmt.Sprint(whole.got) != fmt.Sprint(cut.got) || (whole.end == nil) != (cut.end == nil) {
			t.Errorf("whole: %q %+v, cut by %d: %q %+v", whole.got, whole.end, size, cut.got, cut.end)
		}
	})
}
