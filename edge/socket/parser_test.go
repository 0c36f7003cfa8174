package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

var testBounds = bounds{maxMessage: 1000, maxFragments: 8}

// got is an event with its bytes copied, or the fault that ended the stream.
type got struct {
	op   ws.OpCode
	data string
	end  End
}

// feedAll parses stream in pieces of step bytes, with a pool that must be whole again.
func feedAll(t testing.TB, stream []byte, step int, lim bounds) (all []got) {
	t.Helper()
	pool := &buffers{budget: 1 << 30}
	var p parser
	for i := 0; i < len(stream); i += step {
		piece := bytes.Clone(stream[i:min(i+step, len(stream))])
		for len(piece) > 0 {
			n, ev, f := p.next(piece, lim, pool)
			if f != nil {
				p.release(pool)
				checkPool(t, pool)
				return append(all, got{end: f.end})
			}
			if ev.op == 0 && n < len(piece) && !p.between() {
				t.Fatalf("stopped after %d of %d bytes inside a frame", n, len(piece))
			}
			if ev.op != 0 {
				all = append(all, got{op: ev.op, data: string(ev.data)})
			}
			piece = piece[n:]
		}
	}
	p.releaseDone(pool)
	if p.resting() {
		checkPool(t, pool)
	}
	p.release(pool)
	checkPool(t, pool)
	return all
}

func checkPool(t testing.TB, pool *buffers) {
	t.Helper()
	if pool.lent != 0 {
		t.Fatalf("%d bytes were not given back", pool.lent)
	}
}

func masked(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0xa1, 0x02, 0x7f, 0x00}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, payload...)
	ws.Cipher(b[at:], mask, 0)
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func fill(n int) string { return strings.Repeat("x", n) }

// frameCases is shared by the table test, the fuzz corpus and the test over TCP.
var frameCases = []struct {
	name   string
	stream []byte
	want   []got
}{
	{"text", masked(0x81, "hello"), []got{{op: ws.OpText, data: "hello"}}},
	{"empty text", masked(0x81, ""), []got{{op: ws.OpText}}},
	{"binary", masked(0x82, "\xff\x00"), []got{{op: ws.OpBinary, data: "\xff\x00"}}},
	{"125, 126, 127 bytes", join(masked(0x82, fill(125)), masked(0x82, fill(126)), masked(0x82, fill(127))),
		[]got{{op: ws.OpBinary, data: fill(125)}, {op: ws.OpBinary, data: fill(126)}, {op: ws.OpBinary, data: fill(127)}}},
	{"fragments", join(masked(0x01, "ab"), masked(0x00, ""), masked(0x80, "cd")), []got{{op: ws.OpText, data: "abcd"}}},
	{"empty fragments", join(masked(0x01, ""), masked(0x00, ""), masked(0x80, "")), []got{{op: ws.OpText}}},
	{"ping inside a message", join(masked(0x01, "ab"), masked(0x89, "p"), masked(0x80, "cd")), []got{{op: ws.OpPing, data: "p"}, {op: ws.OpText, data: "abcd"}}},
	{"control frames", join(masked(0x89, fill(125)), masked(0x8a, ""), masked(0x88, "\x03\xe8")),
		[]got{{op: ws.OpPing, data: fill(125)}, {op: ws.OpPong}, {op: ws.OpClose, data: "\x03\xe8"}}},
	{"character cut by fragments", join(masked(0x01, "\xf0\x9f"), masked(0x89, ""), masked(0x00, "\x98"), masked(0x80, "\x80")),
		[]got{{op: ws.OpPing}, {op: ws.OpText, data: "😀"}}},
	{"binary fragments are not checked", join(masked(0x02, "\xff"), masked(0x80, "\xfe")), []got{{op: ws.OpBinary, data: "\xff\xfe"}}},
	{"largest message", masked(0x81, fill(1000)), []got{{op: ws.OpText, data: fill(1000)}}},

	{"unmasked", []byte{0x81, 0x01, 'a'}, []got{{end: EndFrame}}},
	{"rsv1", masked(0xc1, "a"), []got{{end: EndFrame}}},
	{"rsv2", masked(0xa1, "a"), []got{{end: EndFrame}}},
	{"rsv3 of a control frame", masked(0x99, ""), []got{{end: EndFrame}}},
	{"opcode 3", masked(0x83, ""), []got{{end: EndFrame}}},
	{"opcode 7", masked(0x87, ""), []got{{end: EndFrame}}},
	{"opcode 11", masked(0x8b, ""), []got{{end: EndFrame}}},
	{"opcode 15", masked(0x8f, ""), []got{{end: EndFrame}}},
	{"opcode 3 inside a message", join(masked(0x01, "a"), masked(0x83, "")), []got{{end: EndFrame}}},
	{"fragment of a ping", masked(0x09, "a"), []got{{end: EndFrame}}},
	{"ping of 126 bytes", masked(0x89, fill(126)), []got{{end: EndFrame}}},
	{"continuation first", masked(0x80, "a"), []got{{end: EndFrame}}},
	{"continuation after a whole message", join(masked(0x81, "a"), masked(0x80, "b")), []got{{op: ws.OpText, data: "a"}, {end: EndFrame}}},
	{"message inside a message", join(masked(0x01, "a"), masked(0x81, "b")), []got{{end: EndFrame}}},
	{"16-bit length too long", []byte{0x82, 0x80 | 126, 0, 125, 0, 0, 0, 0}, []got{{end: EndFrame}}},
	{"64-bit length too long", []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}, []got{{end: EndFrame}}},
	{"64-bit length, top bit", []byte{0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []got{{end: EndFrame}}},
	{"64-bit length, all ones", []byte{0x82, 0x80 | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, []got{{end: EndFrame}}},
	{"2^62 bytes", []byte{0x82, 0x80 | 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []got{{end: EndTooLarge}}},
	{"a byte too large", masked(0x81, fill(1001)), []got{{end: EndTooLarge}}},
	{"too large by fragments", join(masked(0x01, fill(999)), masked(0x80, "ab")), []got{{end: EndTooLarge}}},
	{"too many fragments", join(masked(0x02, ""), bytes.Repeat(masked(0x00, ""), 8)), []got{{end: EndTooLarge}}},
	{"bad UTF-8", masked(0x81, "\xc0\xaf"), []got{{end: EndText}}},
	{"surrogate", masked(0x81, "\xed\xa0\x80"), []got{{end: EndText}}},
	{"above U+10FFFF", masked(0x81, "\xf4\x90\x80\x80"), []got{{end: EndText}}},
	{"UTF-8 that stops early", masked(0x81, "a\xf0\x9f\x98"), []got{{end: EndText}}},
	{"UTF-8 that stops early, fragments", join(masked(0x01, "a\xf0"), masked(0x80, "\x9f")), []got{{end: EndText}}},
	{"UTF-8 that fails in a first fragment", masked(0x01, "\xf4\x90"), []got{{end: EndText}}},
	{"UTF-8 that fails across fragments", join(masked(0x01, "\xf4"), masked(0x00, "\x90")), []got{{end: EndText}}},
}

func TestFramesAtAnyChunking(t *testing.T) {
	for _, c := range frameCases {
		for step := 1; step <= len(c.stream); step++ {
			if all := feedAll(t, c.stream, step, testBounds); fmt.Sprint(all) != fmt.Sprint(c.want) {
				t.Errorf("%s in steps of %d: got %.200v, want %.200v", c.name, step, all, c.want)
			}
			if step > 20 && step < len(c.stream)-20 {
				step += 97
			}
		}
	}
}

// What cannot become valid fails at the byte that says so, not at the frame's end:
// Autobahn 6.4.
func TestUTF8FailsFast(t *testing.T) {
	whole := masked(0x81, "κόσμε\xf4\x90\x80\x80edited")
	bad := len(whole) - len("\x90\x80\x80edited")
	pool := &buffers{budget: 1 << 20}
	var p parser
	for i, b := range whole {
		_, _, f := p.next([]byte{b}, testBounds, pool)
		if (f != nil) != (i == bad) {
			t.Fatalf("byte %d of %d (bad is %d): %v", i, len(whole), bad, f)
		}
		if f != nil {
			return
		}
	}
}

func TestHeadFailsFast(t *testing.T) {
	for _, head := range [][]byte{{0x81, 0x7f}, {0xf1, 0xff}, {0x83, 0xff}, {0x09, 0x80}, {0x89, 0xfe}} {
		if all := feedAll(t, head, 1, testBounds); len(all) != 1 || all[0].end != EndFrame {
			t.Errorf("% x: %v", head, all)
		}
	}
}

// reference reads a stream with gobwas/ws, whole message by whole message.
func reference(stream []byte, lim bounds) (all []got) {
	r := bytes.NewReader(stream)
	var msg []byte
	var msgOp ws.OpCode
	frags := 0
	for {
		h, err := ws.ReadHeader(r)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return all
		case err != nil:
			return append(all, got{end: EndFrame})
		}
		state := ws.StateServerSide
		if msgOp != 0 {
			state = state.Set(ws.StateFragmented)
		}
		if ws.CheckHeader(h, state) != nil {
			return append(all, got{end: EndFrame})
		}
		if !h.OpCode.IsControl() {
			if frags++; h.Length > int64(lim.maxMessage-len(msg)) || frags > lim.maxFragments {
				return append(all, got{end: EndTooLarge})
			}
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(r, b); err != nil {
			return all
		}
		ws.Cipher(b, h.Mask, 0)
		if h.OpCode.IsControl() {
			all = append(all, got{op: h.OpCode, data: string(b)})
			continue
		}
		if msgOp == 0 {
			msgOp = h.OpCode
		}
		if msg = append(msg, b...); h.Fin {
			if msgOp == ws.OpText && !utf8.Valid(msg) {
				return append(all, got{end: EndText})
			}
			all = append(all, got{op: msgOp, data: string(msg)})
			msg, msgOp, frags = nil, 0, 0
		}
	}
}

// minimal reports whether every length of the stream is spelled as short as it can be:
// gobwas/ws does not ask for it.
func minimal(stream []byte) bool {
	for len(stream) >= 2 {
		n, head := uint64(stream[1]&0x7f), 2
		switch {
		case n == 126 && len(stream) >= 4:
			if n, head = uint64(binary.BigEndian.Uint16(stream[2:])), 4; n < 126 {
				return false
			}
		case n == 127 && len(stream) >= 10:
			if n, head = binary.BigEndian.Uint64(stream[2:]), 10; n < 1<<16 {
				return false
			}
		}
		if stream[1]&0x80 != 0 {
			head += 4
		}
		if n > uint64(len(stream)) || head+int(n) > len(stream) {
			return true
		}
		stream = stream[head+int(n):]
	}
	return true
}

// FuzzParser: in any chunking the result is the same, and it is that of gobwas/ws where
// the stream is long enough to tell.
func FuzzParser(f *testing.F) {
	for _, c := range frameCases {
		f.Add(c.stream, 1)
		f.Add(c.stream, 7)
	}
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		if len(stream) > 1<<14 {
			return
		}
		whole := feedAll(t, stream, max(len(stream), 1), testBounds)
		if step > 0 && step < len(stream) {
			if all := feedAll(t, stream, step, testBounds); fmt.Sprint(all) != fmt.Sprint(whole) {
				t.Fatalf("steps of %d: %.200v, whole %.200v", step, all, whole)
			}
		}
		if !minimal(stream) {
			return
		}
		want := reference(stream, testBounds)
		if fmt.Sprint(whole) != fmt.Sprint(want) && !failsEarlier(whole, want) {
			t.Fatalf("got %.200v, gobwas/ws %.200v", whole, want)
		}
	})
}

// failsEarlier: a fault that is certain is reported before the frame, or the message, is
// complete. What the reference reads behind it is no message.
func failsEarlier(a, b []got) bool {
	last := len(a) - 1
	if last < 0 || a[last].end == EndNone || last > len(b) || fmt.Sprint(a[:last]) != fmt.Sprint(b[:last]) {
		return false
	}
	for _, g := range b[last:] {
		if g.op != 0 && !g.op.IsControl() {
			return false
		}
	}
	return len(b) == last || a[last].end == EndText
}

func TestUTF8Check(t *testing.T) {
	for _, s := range []string{"", "a", "é", "€", "😀", "a€b😀c", "\xff", "\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc0\x80", "\xe0\x80\x80",
		"\xed\xa0\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "€\xe2", "\xe2€", "\xf0\x9f\x98a", "\uFFFD"} {
		for cut := range len(s) + 1 {
			for cut2 := cut; cut2 <= len(s); cut2++ {
				var u utf8Check
				ok := u.add([]byte(s[:cut])) && u.add([]byte(s[cut:cut2])) && u.add([]byte(s[cut2:])) && u.whole()
				if ok != utf8.ValidString(s) {
					t.Errorf("%q cut at %d and %d: %v", s, cut, cut2, ok)
				}
			}
		}
	}
}

func TestFrameStart(t *testing.T) {
	var out []byte
	var starts []int
	for _, n := range []int{0, 5, 125, 126, 1000, 1 << 16, 3} {
		starts = append(starts, len(out))
		out = append(appendHead(out, ws.OpText, n), make([]byte, n)...)
	}
	starts = append(starts, len(out))
	for i, s := range starts[:len(starts)-1] {
		for _, at := range []int{s, s + 1, starts[i+1] - 1} {
			want := s
			if got := frameStart(out, at, false); got != want {
				t.Errorf("start of the frame that holds %d: %d, want %d", at, got, want)
			}
			if at > s {
				want = starts[i+1]
			}
			if got := frameStart(out, at, true); got != want {
				t.Errorf("end of the frame that holds %d: %d, want %d", at, got, want)
			}
		}
	}
}

func TestStamps(t *testing.T) {
	for _, s := range []stamp{0, 1, 1 << 31, 1<<32 - 1} {
		if l := s.after(longest); l.sub(s) != longest || l.reached(s) || !l.reached(l) || earlier(s, l) != s || earlier(l, s) != s {
			t.Errorf("stamp %d", s)
		}
		if s.after(1).sub(s) != stampUnit || s.after(longest*2).sub(s) != longest {
			t.Errorf("stamp %d is not rounded up or cut", s)
		}
	}
}

func TestClosePayload(t *testing.T) {
	for _, c := range []struct {
		body string
		code ws.StatusCode
		end  End
	}{
		{"", 1005, EndNone}, {"\x03\xe8", 1000, EndNone}, {"\x03\xe8why €", 1000, EndNone}, {"\x0f\xa0", 4000, EndNone}, {"\x13\x87", 4999, EndNone},
		{"\x03\xf3", 1011, EndNone}, {"\x03\xf4", 1012, EndNone}, {"\x03\xf5why", 1013, EndNone}, {"\x03\xf6", 1014, EndNone}, {"\x03\xf5\xff", 0, EndText},
		{"\x03", 0, EndFrame}, {"\x00\x00", 0, EndFrame}, {"\x03\xe7", 0, EndFrame}, {"\x03\xec", 0, EndFrame}, {"\x03\xed", 0, EndFrame},
		{"\x03\xee", 0, EndFrame}, {"\x03\xf7", 0, EndFrame}, {"\x03\xf8", 0, EndFrame}, {"\x04\x4c", 0, EndFrame}, {"\x0b\xb7", 0, EndFrame}, {"\x13\x88", 0, EndFrame},
		{"\xff\xff", 0, EndFrame}, {"\x03\xe8\xff", 0, EndText},
	} {
		code, f := closePayload([]byte(c.body))
		if f == nil && (c.end != EndNone || code != c.code) || f != nil && f.end != c.end {
			t.Errorf("%q: %d, %v", c.body, code, f)
		}
	}
}
