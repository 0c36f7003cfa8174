package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/userid"
)

// script is a server: it sends its pieces, one for each Read, and keeps what it is sent.
type script struct {
	pieces [][]byte
	got    bytes.Buffer
	fail   error // of Write
	closed bool
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	return s.got.Write(b)
}

func (s *script) Close() error                     { s.closed = true; return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// read reads all that the server sends. It returns what nats.go gets and what the owner
// does, as text.
func read(pieces [][]byte) (pass, frames string, err error) {
	f := New(func() {})
	w := newWire(f, &script{pieces: pieces})
	var text strings.Builder
	done := make(chan struct{})
	end := make(chan struct{})
	take := func(b *Batch) {
		for i := range b.Frames {
			fr := &b.Frames[i]
			fmt.Fprintf(&text, "%s|%s|%s\n", fr.Subject, fr.Header, fr.Data)
			for _, part := range [][]byte{fr.Subject, fr.Header, fr.Data} { // nobody may need them again
				clear(part)
			}
		}
		b.Release()
	}
	go func() {
		defer close(done)
		for {
			select {
			case b := <-f.Batches():
				take(b)
			case <-end:
				for len(f.Batches()) > 0 {
					take(<-f.Batches())
				}
				return
			}
		}
	}()
	all, err := io.ReadAll(w)
	close(end)
	<-done
	return string(all), text.String(), err
}

const (
	header = "NATS/1.0\r\nNats-Stream: S\r\nNats-Sequence: 7\r\n\r\n"
	pong   = "PONG\r\n"
)

// conversation has every operation that a server sends, and payloads that look like some.
func conversation() (stream, pass, frames string) {
	live := func(subject, head, data string) {
		if head == "" {
			stream += fmt.Sprintf("MSG %s u%s %d\r\n%s\r\n", subject, subject, len(data), data)
		} else {
			stream += fmt.Sprintf("HMSG %s u%s %d %d\r\n%s%s\r\n", subject, subject, len(head), len(head)+len(data), head, data)
		}
		frames += fmt.Sprintf("%s|%s|%s\n", subject, head, data)
	}
	other := func(s string) { stream += s; pass += s }
	other("INFO {\"server_id\":\"x\"}\r\n")
	other(pong)
	live("im.live.0.a", header, `{"a":1}`)
	live("im.live.0.b", "", "")
	other("PING\r\n")
	other("MSG _INBOX.x 1 5\r\nhello\r\n")
	other("HMSG _INBOX.x 1 reply 12 12\r\nNATS/1.0\r\n\r\n\r\n")
	live("im.live.1.c", "", "PING\r\nMSG im.live.0.d ud 1\r\n\r\n")
	other("+OK\r\n")
	live("im.live.0.e", header, "")
	live("im.live.0.e", header, strings.Repeat("x", 300))
	other("-ERR 'Permissions Violation for Subscription to \"x\"'\r\n")
	stream += "MSG im.live.0.f uf some.reply 2\r\n{}\r\n"
	frames += "im.live.0.f||{}\n"
	stream += "msg  im.live.0.g  ug  2\r\n{}\r\n"
	frames += "im.live.0.g||{}\n"
	other("INFO {\"ldm\":true}\r\n")
	return stream, pass, frames
}

// The same bytes, cut anywhere, are the same frames in the same order, and nats.go gets
// everything else as it is.
func TestCutAnywhere(t *testing.T) {
	stream, pass, frames := conversation()
	check := func(what string, pieces ...[]byte) {
		t.Helper()
		gotPass, gotFrames, err := read(pieces)
		if err != nil || gotPass != pass || gotFrames != frames {
			t.Fatalf("%s: %v\nnats.go got %q\nwant        %q\nframes %q\nwant   %q", what, err, gotPass, pass, gotFrames, frames)
		}
	}
	b := []byte(stream)
	check("in one piece", b)
	for i := 1; i < len(b); i++ {
		check(fmt.Sprint("cut at ", i), b[:i:i], b[i:])
	}
	for _, size := range []int{1, 2, 3, 7, 64} {
		var pieces [][]byte
		for rest := b; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			pieces = append(pieces, rest[:min(size, len(rest))])
		}
		check(fmt.Sprint("in pieces of ", size), pieces...)
	}
}

// Messages that are larger than a buffer, and many that fill it again and again.
func TestLargeAndMany(t *testing.T) {
	var stream, frames strings.Builder
	for i := range 300 {
		size := i * 13 % 997
		if i%50 == 10 {
			size = bufferSize*i/50 + i
		}
		data := strings.Repeat(string(rune('a'+i%26)), size)
		fmt.Fprintf(&stream, "MSG im.live.0.u%d uu%d %d\r\n%s\r\n", i, i, size, data)
		fmt.Fprintf(&frames, "im.live.0.u%d||%s\n", i, data)
	}
	for _, size := range []int{1000, bufferSize, 1 << 20} {
		var pieces [][]byte
		for rest := []byte(stream.String()); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			pieces = append(pieces, rest[:min(size, len(rest))])
		}
		pass, got, err := read(pieces)
		if err != nil || pass != "" || got != frames.String() {
			t.Errorf("pieces of %d: %v, %d bytes for nats.go, %d bytes of frames, want %d", size, err, len(pass), len(got), frames.Len())
		}
	}
}

func TestWhatNoServerSends(t *testing.T) {
	for stream, want := range map[string]error{
		strings.Repeat("x", maxLine):                    errLine,
		"INFO " + strings.Repeat("x", maxLine) + "\r\n": errLine,
		"MSG\r\n":                                          errArgs,
		"MSG a u1\r\n":                                     errArgs,
		"MSG a u1 b c 1\r\n":                               errArgs,
		"MSG a u1 b c d 1\r\n":                             errArgs,
		"MSG a u1 -1\r\n":                                  errArgs,
		"MSG a u1 x\r\n":                                   errArgs,
		"MSG a u1 99999999999999999999\r\n":                errArgs,
		"HMSG a u1 5\r\n":                                  errArgs,
		"HMSG a u1 5 4\r\n":                                errArgs,
		fmt.Sprintf("MSG a u1 %d\r\n", maxMessage+1):       errSize,
		fmt.Sprintf("HMSG a u1 1 %d\r\n", maxMessage+1):    errSize,
		"MSG a u1 3\r\nabcdef\r\n":                         errPayload,
		"MSG a u1 3\r\nab\r\n\r\n":                         errPayload,
		"MSG im.live.0.a ua 2\r\n{}\r\nMSG b u2 2\r\n{}xx": errPayload,
	} {
		if _, _, err := read([][]byte{[]byte(stream)}); !errors.Is(err, want) {
			t.Errorf("%.60q: %v, want %v", stream, err, want)
		}
	}
}

// While the owner has all batches, nothing is read; what is read then is nothing new, and
// Close ends the wait.
func TestBackPressure(t *testing.T) {
	f := New(func() {})
	var pieces [][]byte
	for range 5 {
		pieces = append(pieces, []byte("MSG im.live.0.a ua 2\r\n{}\r\n"))
	}
	srv := &script{pieces: pieces}
	w := newWire(f, srv)
	ended := make(chan error)
	go func() {
		_, err := w.Read(make([]byte, 10))
		ended <- err
	}()
	first := <-f.Batches()
	select {
	case b := <-f.Batches():
		t.Fatalf("a second batch of %d frames came before the first was released", len(b.Frames))
	case err := <-ended:
		t.Fatalf("Read returned %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	first.Release()
	second := <-f.Batches()
	_ = w.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) || !srv.closed {
		t.Errorf("Read ended with %v, closed %v", err, srv.closed)
	}
	if len(srv.pieces) != 5-3 { // one is in the buffer that waits
		t.Errorf("%d pieces were read while the owner had all batches", 5-len(srv.pieces))
	}
	second.Release()
}

func id(name string) userid.ID { return userid.MustParse(name) }

// renewed returns a feed with a connection on which nobody is subscribed.
func renewed(srv *script) (*Feed, *wire) {
	f := New(func() {})
	w := newWire(f, srv)
	f.greeted(w)
	f.Renew(func(func(int, userid.ID) bool) {})
	return f, w
}

// Subscriptions leave in front of what nats.go writes next, in their order.
func TestOrderOfWriting(t *testing.T) {
	srv := &script{}
	f, w := renewed(srv)
	f.Subscribe(3, id("ann"))
	f.Subscribe(11, id("b.c"))
	f.Unsubscribe(id("ann"))
	if srv.got.Len() > 0 {
		t.Errorf("%q left alone", srv.got.String())
	}
	if n, err := w.Write([]byte("PUB x 0\r\n\r\n")); n != 11 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if n, err := w.Write([]byte("PING\r\n")); n != 6 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	const want = "SUB im.live.3.ann uann\r\nSUB im.live.11.b=2Ec ub=2Ec\r\nUNSUB uann\r\nPUB x 0\r\n\r\nPING\r\n"
	if got := srv.got.String(); got != want {
		t.Errorf("written %q, want %q", got, want)
	}
	for range flushAt / 16 {
		f.Subscribe(0, id("many"))
	}
	if srv.got.Len() < flushAt {
		t.Error("a full buffer was not written")
	}
	srv.fail = errors.New("reset")
	if _, err := w.Write([]byte("PING\r\n")); err == nil || !srv.closed {
		t.Errorf("a write that failed: %v, closed %v", err, srv.closed)
	}
}

// A connection is open for requests when all subscriptions are on it, and not before.
func TestRenew(t *testing.T) {
	calls := 0
	f := New(func() { calls++ })
	f.Renew(nil) // there is no connection
	f.Subscribe(0, id("early"))
	srv1, srv2 := &script{pieces: [][]byte{[]byte("INFO {}\r\nPONG\r\nPONG\r\n")}}, &script{}
	w1, w2 := newWire(f, srv1), newWire(f, srv2)
	if _, err := f.Request(t.Context(), "x"); !errors.Is(err, ErrNotSubscribed) {
		t.Errorf("a request without a connection: %v", err)
	}
	for {
		if _, err := w1.Read(make([]byte, 3)); err != nil {
			break
		}
	}
	if calls != 1 {
		t.Fatalf("the owner was told %d times", calls)
	}
	f.Subscribe(0, id("before")) // Renew will do it
	f.Renew(func(yield func(int, userid.ID) bool) {
		yield(0, id("ann"))
		f.greeted(w2) // meanwhile the connection is lost, and there is another one
		yield(0, id("bob"))
	})
	if f.open.Load() != nil {
		t.Fatal("open without all subscriptions")
	}
	f.Renew(func(yield func(int, userid.ID) bool) { yield(0, id("ann")); yield(0, id("bob")) })
	if f.open.Load() != w2 {
		t.Fatal("not open with all subscriptions")
	}
	_, _ = w2.Write([]byte("PING\r\n"))
	if got, want := srv2.got.String(), "SUB im.live.0.ann uann\r\nSUB im.live.0.bob ubob\r\nPING\r\n"; got != want {
		t.Errorf("written %q, want %q", got, want)
	}
	f.greeted(newWire(f, &script{}))
	if _, err := f.Request(t.Context(), "x"); !errors.Is(err, ErrNotSubscribed) {
		t.Errorf("a request on a new connection without subscriptions: %v", err)
	}
}

func TestFields(t *testing.T) {
	f := Frame{Header: []byte("NATS/1.0\r\nA: 1\r\nno colon\r\n: no key\r\nB:two words \r\nA: \r\n\r\n")}
	var got []string
	for k, v := range f.Fields() {
		got = append(got, string(k)+"="+string(v))
	}
	if want := "A=1 B=two words A="; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range f.Fields() {
		break
	}
	for range (&Frame{}).Fields() {
		t.Error("a field of no header")
	}
}

// FuzzStream: whatever comes, at any cut, nothing panics, what passes and what is handed
// over does not depend on the cuts, and no buffer grows beyond its bounds.
func FuzzStream(f *testing.F) {
	stream, _, _ := conversation()
	f.Add([]byte(stream), 7)
	f.Add([]byte("MSG im.live.0.a ua 8388608\r\nx"), 1)
	f.Add([]byte("HMSG a u1 0 0\r\n\r\nHMSG a u1 999999999 999999999\r\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, size%len(append(b, 0)))
		var pieces [][]byte
		for rest := bytes.Clone(b); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			pieces = append(pieces, rest[:min(size, len(rest))])
		}
		pass1, frames1, err1 := read([][]byte{bytes.Clone(b)})
		pass2, frames2, err2 := read(pieces)
		if !errors.Is(err1, err2) {
			t.Errorf("in one piece %v, in pieces of %d %v", err1, size, err2)
		}
		if err1 == nil && (pass1 != pass2 || frames1 != frames2) {
			t.Errorf("in one piece %q %q, in pieces of %d %q %q", pass1, frames1, size, pass2, frames2)
		}
		for at := 0; at < len(b); {
			fr, kind, n, need, err := next(b[at:])
			if n > len(b)-at || need > maxLine+maxMessage+2 || n == 0 && kind == opFrame || n > 0 && err != nil {
				t.Fatalf("at %d of %d: %d bytes, %d needed, %v", at, len(b), n, need, err)
			}
			if len(fr.Subject)+len(fr.Header)+len(fr.Data) > n {
				t.Fatalf("at %d: a frame of more bytes than there are", at)
			}
			if n == 0 {
				break
			}
			at += n
		}
	})
}

// endless is a server that sends the same frames again and again.
type endless struct {
	script
	b  []byte
	at int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

func republished(n int) []byte {
	var b []byte
	for i := range n {
		h := fmt.Sprintf("NATS/1.0\r\nNats-Stream: DOWN_2_k3x9_0\r\nNats-Subject: im.down.0.user-%d\r\nNats-Sequence: %d\r\nNats-Time-Stamp: 2026-11-26T00:00:00.123456789Z\r\nNats-Last-Sequence: %d\r\n\r\n", i, 1_000_000+i, 900_000+i)
		data := append([]byte(`{"msgType":3,"x":"`), make([]byte, 182)...)
		b = fmt.Appendf(b, "HMSG im.live.0.user-%d uuser-%d %d %d\r\n%s%s\r\n", i, i, len(h), len(h)+len(data), h, data)
	}
	return b
}

// A frame costs no allocation on its way to the owner.
func TestNoAllocation(t *testing.T) {
	f := New(func() {})
	w := newWire(f, &endless{b: republished(1000)})
	go func() { _, _ = w.Read(make([]byte, 1)) }()
	defer w.Close()
	some := func() {
		for range 10 {
			b := <-f.Batches()
			for i := range b.Frames {
				for range b.Frames[i].Fields() {
					continue
				}
			}
			b.Release()
		}
	}
	some()
	if n := testing.AllocsPerRun(50, some); n > 0 {
		t.Errorf("%v allocations for ten batches", n)
	}
}

// BenchmarkRead is a frame from the socket's bytes to the owner.
func BenchmarkRead(b *testing.B) {
	f := New(func() {})
	w := newWire(f, &endless{b: republished(1000)})
	go func() { _, _ = w.Read(make([]byte, 1)) }()
	defer w.Close()
	b.ReportAllocs()
	n := 0
	for b.Loop() { // one batch
		bt := <-f.Batches()
		n += len(bt.Frames)
		bt.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/frame")
	b.ReportMetric(0, "ns/op")
}
