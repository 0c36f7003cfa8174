package socket_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

// Bad frames end with the close code of RFC 6455, in one piece, byte by byte, and behind
// a good message; and the server, not the peer, ends TCP.
func TestBadFrames(t *testing.T) {
	r := serve(t, nil)
	for name, c := range map[string]struct {
		raw  []byte
		code int
	}{
		"unmasked":             {[]byte{0x81, 0x01, 'a'}, 1002},
		"reserved bit":         {rsv(frame(ws.OpText, true, "a")), 1002},
		"reserved opcode":      {frame(3, true, ""), 1002},
		"reserved control":     {frame(11, true, ""), 1002},
		"fragmented ping":      {frame(ws.OpPing, false, ""), 1002},
		"long ping":            {frame(ws.OpPing, true, strings.Repeat("x", 126)), 1002},
		"lonely continuation":  {frame(ws.OpContinuation, true, ""), 1002},
		"interleaved messages": {append(frame(ws.OpText, false, "a"), frame(ws.OpText, true, "b")...), 1002},
		"binary":               {frame(ws.OpBinary, true, "a"), 1003},
		"invalid UTF-8":        {frame(ws.OpText, true, "\xff"), 1007},
		"cut UTF-8":            {append(frame(ws.OpText, false, "\xe2"), frame(ws.OpContinuation, true, "")...), 1007},
		"over maxFrame":        {[]byte{0x81, 0xff, 0, 0, 0, 0, 0, 2, 0, 1, 1, 2, 3, 4}, 1009},
		"63-bit length":        {[]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 1002},
		"close code 1005":      {frame(ws.OpClose, true, "\x03\xed"), 1002},
		"close code 999":       {frame(ws.OpClose, true, "\x03\xe7"), 1002},
		"close code 5000":      {frame(ws.OpClose, true, "\x13\x88"), 1002},
		"close of one byte":    {frame(ws.OpClose, true, "\x03"), 1002},
		"close, bad UTF-8":     {frame(ws.OpClose, true, "\x03\xe8\xff"), 1007},
	} {
		for _, way := range []string{"whole", "bytes", "behind"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				r.t = t
				p := r.login("u1")
				switch way {
				case "whole":
					p.raw(c.raw)
				case "bytes":
					for _, b := range c.raw {
						if _, err := p.Write([]byte{b}); err != nil {
							break // it was closed before its last byte
						}
					}
				case "behind":
					p.raw(append(append(frame(ws.OpText, true, "good"), frame(ws.OpText, true, plain)...), c.raw...))
					if ev := r.up.next(t); ev.data != "good" {
						t.Errorf("published %q", ev.data)
					}
					p.expectText(plain)
				}
				p.expectClose(c.code)
				if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.Reason == envelope.ReasonClientClose {
					t.Errorf("published %s %q", ev.Type, ev.Reason)
				}
			})
		}
	}
}

func rsv(b []byte) []byte { b[0] |= 0x40; return b }

// A peer that goes on sending after its fault still gets to read the close frame.
func TestCloseFrameSurvivesAFlood(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	p.raw([]byte{0x81, 0x01, 'a'})
	junk := make([]byte, 64<<10)
	for range 20 {
		if _, err := p.Write(junk); err != nil {
			break
		}
	}
	if f := p.next(); f.Header.OpCode != ws.OpClose {
		t.Fatalf("opcode %x", f.Header.OpCode)
	}
}

// What comes behind a fault is read for a while only.
func TestDeafReadingIsBounded(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Close = 500 * time.Millisecond })
	p := r.login("u1")
	p.raw([]byte{0x81, 0x01, 'a'})
	for junk := make([]byte, 64<<10); ; {
		if _, err := p.Write(junk); err != nil {
			break
		}
	}
	if n := r.metric("bytes_in_total"); n > 1<<20 {
		t.Errorf("%v bytes were read", n)
	}
}

// A fault behind a close of our own: the first answer stands, and the loop goes on.
func TestFaultWhileClosing(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Loops = 1 })
	for _, between := range []bool{true, false} {
		p := r.open("/ws")
		p.text("no login")
		if between {
			if f := p.next(); f.Header.OpCode != ws.OpClose {
				t.Fatalf("opcode %x", f.Header.OpCode)
			}
			p.raw([]byte{0x81, 0x01, 'a'})
			if _, err := p.r.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("read: %v", err)
			}
		} else {
			p.raw([]byte{0x81, 0x01, 'a'})
			p.expectClose(protocol.CloseNotLogin)
		}
	}
	p := r.open("/ws")
	p.raw(append(frame(ws.OpText, true, "no login"), 0x81, 0x01, 'a')) // in one read
	p.expectClose(protocol.CloseNotLogin)
	r.login("u1")
}

// The codes that IANA has registered since the RFC are answered alike, and are an orderly
// end: a proxy between client and edge sends them.
func TestRegisteredCloseCodes(t *testing.T) {
	r := serve(t, nil)
	for _, code := range []int{1012, 1013, 1014} {
		p := r.login("u1")
		p.raw(frame(ws.OpClose, true, string([]byte{byte(code >> 8), byte(code)})))
		p.expectReply(code)
		if ev := r.up.next(t); ev.Type != envelope.Disconnected || ev.Reason != envelope.ReasonClientClose {
			t.Errorf("%d: published %s %q", code, ev.Type, ev.Reason)
		}
	}
}

func TestCloseWithoutCode(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	p.raw(append(frame(ws.OpClose, true, ""), frame(ws.OpText, true, "behind a close")...))
	if f := p.next(); f.Header.OpCode != ws.OpClose || len(f.Payload) != 0 {
		t.Fatalf("got %x %q", f.Header.OpCode, f.Payload)
	}
	if _, err := p.r.Read(make([]byte, 1)); err == nil {
		t.Fatal("still open")
	}
	if ev := r.up.next(t); ev.Type != envelope.Disconnected {
		t.Fatalf("published %s %q", ev.Type, ev.data)
	}
}

// A peer that never answers a close frame is cut after Times.Close.
func TestCloseIsBounded(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Close = 50 * time.Millisecond })
	p := r.login("u1/1s")
	for {
		if f := p.next(); f.Header.OpCode == ws.OpClose {
			break
		}
	}
	if _, err := p.r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
}

func TestPings(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	p.raw(append(frame(ws.OpText, false, "ab"), append(frame(ws.OpPing, true, "hello"), frame(ws.OpContinuation, true, "cd")...)...))
	if f := p.next(); f.Header.OpCode != ws.OpPong || string(f.Payload) != "hello" {
		t.Fatalf("got %x %q", f.Header.OpCode, f.Payload)
	}
	if ev := r.up.next(t); ev.data != "abcd" {
		t.Errorf("published %q", ev.data)
	}
	p.raw(frame(ws.OpPong, true, "unasked"))
	p.text(plain)
	p.expectText(plain)
}

// A flood of pings whose answers are not read ends like any slow reader: bounded.
func TestPingFlood(t *testing.T) {
	t.Parallel()
	r := serve(t, nil)
	p := r.login("u1")
	flood := make([]byte, 0, 1<<20)
	for len(flood) < 1<<20-200 {
		flood = append(flood, frame(ws.OpPing, true, strings.Repeat("x", 125))...)
	}
	for range 100 {
		if _, err := p.Write(flood); err != nil {
			break
		}
	}
	eventually(t, "closed as slow", func() bool { return r.metric("closed_total", "slow_reader") == 1 })
}

func TestMessageThatDribbles(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Message = 100 * time.Millisecond })
	part := frame(ws.OpText, true, "0123456789")
	for name, first := range map[string][]byte{
		"head": part[:1], "payload": part[:10], "fragment": frame(ws.OpText, false, "a"), "control": frame(ws.OpPing, true, "abc")[:7],
		"behind a whole one": append(frame(ws.OpText, true, plain), part[:8]...),
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			p := r.login("u1")
			p.raw(first)
			p.expectClose(1008)
			r.up.next(t)
		})
	}
}

func TestLargestMessage(t *testing.T) {
	r := serve(t, nil)
	p := r.login("u1")
	big := strings.Repeat("0123456789abcdef", 8<<10)
	p.text(big)
	if ev := r.up.next(t); ev.data != big {
		t.Errorf("%d bytes were published", len(ev.data))
	}
	p.text(big + "x")
	p.expectClose(1009)
	eventually(t, "the buffers are back", func() bool { return r.metric("buffered_bytes") == 0 })
}

func TestBadHandshakes(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Handshake = 500 * time.Millisecond })
	const good = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	for name, c := range map[string]struct{ in, status string }{
		"nothing":    {"", "408"},
		"slow":       {"GET /ws HTTP/1.1\r\nHost: a\r\n", "408"},
		"huge":       {"GET /ws HTTP/1.1\r\nX: " + strings.Repeat("x", 9000), "431"},
		"headers":    {"GET /ws HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", 65), "431"},
		"post":       {"POST /ws HTTP/1.1\r\n\r\n", "405"},
		"http/1.0":   {"GET /ws HTTP/1.0\r\n\r\n", "400"},
		"tls":        {"\x16\x03\x01\x00\x00", "400"},
		"no upgrade": {"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "426"},
		"path":       {strings.Replace(good, "/ws", "/x", 1) + "\r\n", "404"},
		"origin":     {good + "Origin: https://evil.example\r\n\r\n", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			p := r.connect()
			p.raw([]byte(c.in))
			answer, err := io.ReadAll(p)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status+" ") {
				t.Errorf("answer %q, %v", answer, err)
			}
		})
	}
	if log := r.log.String(); !strings.Contains(log, "ALLOWED_ORIGINS") || !strings.Contains(log, "https://evil.example") {
		t.Errorf("log %q", log)
	}
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
	if n := r.metric("handshakes_refused_total"); n != 10 {
		t.Errorf("%v refused", n)
	}
}

// Request, login and frames in any pieces: everything at once, and byte by byte.
func TestHandshakeLoginAndFramesInAnyPieces(t *testing.T) {
	r := serve(t, nil)
	stream := []byte("GET /ws/u1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	stream = append(stream, frame(ws.OpText, true, `{"msgType":2,"msgBody":{"token":"u1"}}`)...)
	stream = append(stream, frame(ws.OpText, true, "first")...)
	stream = append(stream, frame(ws.OpText, true, plain)...)
	for _, step := range []int{len(stream), 1, 50} {
		p := r.connect()
		for i := 0; i < len(stream); i += step {
			p.raw(stream[i:min(i+step, len(stream))])
		}
		head := make([]byte, len("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"))
		if _, err := io.ReadFull(p.r, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
			t.Fatalf("answer %q, %v", head, err)
		}
		p.loginReply()
		if ev := r.up.next(t); ev.Type != envelope.Connected {
			t.Fatalf("published %s", ev.Type)
		}
		if ev := r.up.next(t); ev.data != "first" {
			t.Fatalf("published %q", ev.data)
		}
		p.expectText(plain)
		_ = p.Close()
		r.up.next(t)
	}
}

func TestPathUserOfAnother(t *testing.T) {
	r := serve(t, nil)
	p := r.open("/ws/a%2Fb")
	p.text(`{"msgType":2,"msgBody":{"token":"a"}}`)
	p.expectClose(protocol.CloseTokenRefused)
}

func TestEcho(t *testing.T) {
	r := serveEcho(t)
	p := r.open("/ws")
	p.raw(append(frame(ws.OpText, false, "a"), frame(ws.OpContinuation, true, "b")...))
	p.expectText("ab")
	p.raw(frame(ws.OpBinary, true, "\xff"))
	if f := p.next(); f.Header.OpCode != ws.OpBinary || string(f.Payload) != "\xff" {
		t.Fatalf("got %x %q", f.Header.OpCode, f.Payload)
	}
	big := strings.Repeat("x", 4<<20)
	p.raw(frame(ws.OpBinary, true, big))
	if f := p.next(); string(f.Payload) != big {
		t.Fatalf("%d bytes", len(f.Payload))
	}
	p.raw(frame(ws.OpClose, true, "\x03\xe8"))
	p.expectReply(1000)
}
