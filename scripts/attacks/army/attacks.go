package army

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// Token returns a token of a user; set before an attack begins.
type Token func(user string) string

const (
	kib = 1 << 10
	// conn is what an edge holds for a connection that does nothing but exist: its struct,
	// what it needs while something is going on, the smallest buffer.
	conn = 2 * kib
	// userConn is the same of one that is logged in, NATS subscription included.
	userConn = 4 * kib
	// unread is what waits of a read that was cut short.
	unread = 16 * kib
)

// All returns the attacks, of users who are called by name and whose tokens are good.
func All(token Token) []*Attack {
	login := func(name string) func(int) []byte {
		return func(i int) []byte { return Request("Authorization: Bearer " + token(user(name, i))) }
	}
	text := func(s string) []byte { return Frame(ws.OpText, true, s) }
	return []*Attack{
		{
			Name: "drip", What: "handshakes that never end, a byte a second", N: 10_000, Every: time.Second, Dials: 2500,
			First: func(int) []byte { return []byte("GET /ws HTTP/1.1\r\nX: ") }, Stream: []byte("a"), Piece: 1,
			Holds: conn, Proof: []string{`handshakes_refused_total{reason="timeout"}`, `handshakes_refused_total{reason="arriving"}`},
		},
		{
			Name: "silence", What: "WebSockets that never log in", N: 10_000, Every: time.Second, Dials: 2500,
			First: func(int) []byte { return Request("") },
			Holds: conn, Proof: []string{`closed_total{code="4409",reason="login_timeout"}`, `closed_total{code="1013",reason="gave_way"}`},
		},
		{
			Name: "headers", What: "requests of ever more headers", N: 500, Every: 20 * time.Millisecond, Dials: 500,
			First:  func(int) []byte { return []byte("GET /ws HTTP/1.1\r\n") },
			Stream: []byte("X-Header: " + strings.Repeat("h", 100) + "\r\n"), Holds: conn + 16*kib,
			Proof: []string{`handshakes_refused_total{reason="too_large"}`},
		},
		{
			Name: "origins", What: "pages of a foreign origin", N: 200, Every: 20 * time.Millisecond, Dials: 500,
			First: func(int) []byte { return Request("Origin: https://evil.example") },
			Holds: conn, Proof: []string{`handshakes_refused_total{reason="origin"}`},
		},
		{
			Name: "forgeries", What: "logins with forged tokens", N: 200, Every: 20 * time.Millisecond, Dials: 500,
			First: func(i int) []byte {
				t := token(user("forger", i))
				return Request("Authorization: Bearer " + t[:len(t)-8] + "AAAAAAAA")
			},
			Holds: conn + 8*kib, Proof: []string{`closed_total{code="4501",reason="token_refused"}`},
		},
		{
			Name: "lengths", What: "frames of up to 2⁶⁴-1 bytes", N: 100, Every: 50 * time.Millisecond, Dials: 200,
			First: func(i int) []byte {
				top := []byte{0x00, 0x40, 0x7f, 0xff}[i%4]
				return append(login("lengths")(i), 0x81, 0xff, top, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 'x')
			},
			Holds: userConn, Proof: []string{`closed_total{code="1009",reason="too_large"}`},
		},
		{
			Name: "fragments", What: "messages of endless empty fragments", N: 200, Every: 50 * time.Millisecond, Dials: 200,
			First:  func(i int) []byte { return append(login("fragments")(i), Frame(ws.OpText, false, "a")...) },
			Stream: bytes.Repeat(Frame(ws.OpContinuation, false, ""), 1000), Holds: userConn + unread,
			Proof: []string{`limited_frames_total`, `closed_total{code="1009",reason="too_large"}`},
		},
		{
			Name: "unfinished", What: "messages of 127 KiB without an end", N: 400, Every: 50 * time.Millisecond, Dials: 400,
			First: func(i int) []byte {
				return append(login("unfinished")(i), text(strings.Repeat("x", 128*kib-8))[:127*kib]...)
			},
			Holds: userConn + 128*kib, Proof: []string{`messages_in_total`, `logins_total`},
		},
		{
			Name: "pings", What: "pings as fast as they are taken", N: 200, Every: 20 * time.Millisecond, Dials: 200,
			First: login("pings"), Stream: bytes.Repeat(Frame(ws.OpPing, true, strings.Repeat("p", 125)), 500),
			Holds: userConn + unread, Proof: []string{`limited_frames_total`},
		},
		{
			Name: "unread pings", What: "the same, and the answers are not read", N: 200, Every: 20 * time.Millisecond, Dials: 200,
			First: login("unread"), Stream: bytes.Repeat(Frame(ws.OpPing, true, strings.Repeat("p", 125)), 500), Deaf: true,
			Holds: userConn + unread + 128*kib, Proof: []string{`limited_frames_total`},
		},
		{
			Name: "heartbeats", What: "heartbeats as fast as they are taken", N: 200, Every: 20 * time.Millisecond, Dials: 200,
			First: login("heartbeats"), Stream: bytes.Repeat(text(`{"msgType":1}`), 500),
			Holds: userConn + unread, Proof: []string{`limited_frames_total`},
		},
		{
			Name: "senders", What: "messages at a hundred times the rate", N: 100, Every: 20 * time.Millisecond, Dials: 200,
			First: login("senders"), Stream: bytes.Repeat(text(Message("to nobody")), 100),
			Holds: userConn + unread + 8*kib, Proof: []string{`limited_frames_total`},
		},
		{
			Name: "large senders", What: "messages of 100 KiB as fast as they are taken", N: 50, Every: 20 * time.Millisecond, Dials: 200,
			First: login("large"), Stream: text(Message(strings.Repeat("x", 100*kib))),
			Holds: userConn + unread + 4*128*kib, Proof: []string{`limited_bytes_total`},
		},
		{
			Name: "readers", What: "readers that stop, and are sent 20 MB/s", N: 40, Every: 50 * time.Millisecond, Dials: 200,
			First: login("readers"), Deaf: true, Victim: func(i int) string { return user("readers", i) }, Frame: 16 * kib, Frames: 1250,
			Holds: userConn + 2048*kib, Proof: []string{`closed_total{code="4408",reason="slow_reader"}`},
		},
	}
}

// user names attacker i; 8 of them are one user.
func user(attack string, i int) string { return fmt.Sprintf("%s-%d", attack, i/8) }

// Request is a whole handshake with one more header line, which may be empty.
func Request(line string) []byte {
	if line != "" {
		line += "\r\n"
	}
	return []byte("GET /ws HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + line + "\r\n")
}

// Message is a business frame that no worker will ever see.
func Message(body string) string {
	return fmt.Sprintf(`{"msgType":3,"bizType":1,"bizOptModule":1,"receivedUserId":"nobody","clientMsgId":"c","msgBody":%q}`, body)
}

// Frame is a masked frame.
func Frame(op ws.OpCode, fin bool, payload string) []byte {
	b, err := ws.CompileFrame(ws.MaskFrameInPlaceWith(ws.NewFrame(op, fin, []byte(payload)), [4]byte{1, 2, 3, 4}))
	if err != nil { // into memory
		panic(err)
	}
	return b
}
