package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/protocol"
)

// raw is a WebSocket without a client: it sends whatever it is told to.
type raw struct {
	t  testing.TB
	nc net.Conn
	r  io.Reader
}

// dialRaw opens a WebSocket; header may be nil. status is not 101 when it was refused.
func dialRaw(t testing.TB, url string, header http.Header) (c *raw, status int) {
	t.Helper()
	d := ws.Dialer{Timeout: 10 * time.Second, Header: ws.HandshakeHeaderHTTP(header), Protocols: []string{protocol.Subprotocol}}
	nc, br, _, err := d.Dial(context.Background(), url)
	var refused ws.StatusError
	if errors.As(err, &refused) {
		return nil, int(refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	c = &raw{t: t, nc: nc, r: nc}
	if br != nil {
		c.r = br
	}
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	return c, http.StatusSwitchingProtocols
}

// loginRaw is dialRaw, logged in as user.
func loginRaw(t testing.TB, url, user string) *raw {
	t.Helper()
	c, status := dialRaw(t, url, nil)
	if c == nil {
		t.Fatalf("handshake refused with %d", status)
	}
	c.text(loginText(token(t, user)))
	if m := c.next(); m.MsgType != protocol.Login {
		t.Fatalf("login was answered with %+v", m)
	}
	return c
}

func loginText(token string) string {
	return fmt.Sprintf(`{"msgType":2,"msgBody":{"token":%q}}`, token)
}

func (c *raw) text(s string) { c.frame(ws.MaskFrame(ws.NewTextFrame([]byte(s)))) }

func (c *raw) frame(f ws.Frame) {
	c.t.Helper()
	if err := ws.WriteFrame(c.nc, f); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read returns the next text message, or the code of the close frame.
func (c *raw) read() (text []byte, code int) {
	c.t.Helper()
	for {
		h, err := ws.ReadHeader(c.r)
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.r, p); err != nil {
			c.t.Fatalf("read: %v", err)
		}
		switch h.OpCode {
		case ws.OpText:
			return p, 0
		case ws.OpClose:
			status, _ := ws.ParseCloseFrameData(p)
			return nil, int(status)
		}
	}
}

func (c *raw) next() protocol.Message {
	c.t.Helper()
	text, code := c.read()
	if code != 0 {
		c.t.Fatalf("closed with %d", code)
	}
	var m protocol.Message
	if err := json.Unmarshal(text, &m); err != nil {
		c.t.Fatalf("gateway sent %q: %v", text, err)
	}
	return m
}

// closeCode reads up to the close frame.
func (c *raw) closeCode() int {
	c.t.Helper()
	for {
		if _, code := c.read(); code != 0 {
			return code
		}
	}
}

// What a client can do wrong in a frame, and the code that it gets. The connection stays,
// and the next proper message is stored.
func TestBadFrames(t *testing.T) {
	onBothStores(t, func(t *testing.T, uri string) {
		s := start(t, uri)
		c := loginRaw(t, s.url(0), "alice")
		chat := func(cid, to, body string) string {
			return fmt.Sprintf(`{"msgType":3,"receivedUserId":%q,"bizType":1,"bizOptModule":1,"clientMsgId":%q,"reqId":"r","msgBody":%s}`, to, cid, body)
		}
		c.text(chat("used", "bob", `"first"`))
		if m := c.next(); m.Code != 0 || m.Seq != 1 {
			t.Fatalf("proper message: %+v", m)
		}
		conv := "d:alice:bob"
		for _, tc := range []struct {
			name, frame string
			code        int
		}{
			{"not JSON", `hello`, protocol.CodeMalformed},
			{"empty object's neighbour", `{"msgType":`, protocol.CodeMalformed},
			{"array", `[1,2]`, protocol.CodeMalformed},
			{"number", `7`, protocol.CodeMalformed},
			{"wrong type of a field", `{"msgType":3,"bizType":"one","clientMsgId":"x","reqId":"r"}`, protocol.CodeMalformed},
			{"no msgType", `{"reqId":"r"}`, protocol.CodeUnknownMsgType},
			{"unknown msgType", `{"msgType":9,"reqId":"r"}`, protocol.CodeUnknownMsgType},
			{"unknown bizType", `{"msgType":3,"bizType":77,"reqId":"r"}`, protocol.CodeUnknownBizType},
			{"no bizType", `{"msgType":3,"reqId":"r"}`, protocol.CodeUnknownBizType},
			{"unknown operation", `{"msgType":3,"bizType":1,"bizOptModule":9,"reqId":"r"}`, protocol.CodeUnknownOp},
			{"unknown query", `{"msgType":3,"bizType":2,"bizOptModule":9,"reqId":"r"}`, protocol.CodeUnknownOp},
			{"no clientMsgId", `{"msgType":3,"bizType":1,"bizOptModule":1,"receivedUserId":"bob","msgBody":1,"reqId":"r"}`, protocol.CodeMissingField},
			{"no recipient", `{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"x","msgBody":1,"reqId":"r"}`, protocol.CodeMissingField},
			{"no body", `{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"x","receivedUserId":"bob","reqId":"r"}`, protocol.CodeMissingField},
			{"history of nothing", `{"msgType":3,"bizType":2,"bizOptModule":1,"reqId":"r"}`, protocol.CodeMissingField},
			{"recipient of 300 bytes", chat("x", strings.Repeat("x", 300), `1`), protocol.CodeBadReceiver},
			{"body over the limit", chat("x", "bob", `"`+strings.Repeat("x", protocol.MaxBody-1)+`"`), protocol.CodeBodyTooLarge},
			{"foreign sender", `{"msgType":3,"sendUserId":"mallory","receivedUserId":"bob","bizType":1,"bizOptModule":1,"clientMsgId":"x","msgBody":1,"reqId":"r"}`, protocol.CodeForeignSender},
			{"clientMsgId reused with another body", chat("used", "bob", `"second"`), protocol.CodeClientMsgReused},
			{"clientMsgId reused with another recipient", chat("used", "carol", `"first"`), protocol.CodeClientMsgReused},
			{"history of a foreign conversation", `{"msgType":3,"bizType":2,"bizOptModule":1,"msgBody":{"convId":"d:bob:carol"},"reqId":"r"}`, protocol.CodeForbidden},
			{"history of no conversation", `{"msgType":3,"bizType":2,"bizOptModule":1,"msgBody":{"convId":"` + conv + `/1"},"reqId":"r"}`, protocol.CodeForbidden},
			{"reqId too long", `{"msgType":3,"reqId":"` + strings.Repeat("r", 65) + `"}`, protocol.CodeBadField},
			{"clientMsgId too long", chat(strings.Repeat("c", 65), "bob", `1`), protocol.CodeBadField},
			{"clientMsgId with a space", chat("a b", "bob", `1`), protocol.CodeBadField},
		} {
			c.text(tc.frame)
			m := c.next()
			if m.Code != tc.code || m.Reason == "" {
				t.Errorf("%s: got code %d %q, want %d", tc.name, m.Code, m.Reason, tc.code)
			}
			if strings.Contains(tc.frame, `"reqId":"r"`) && m.ReqID != "r" {
				t.Errorf("%s: the refusal has reqId %q", tc.name, m.ReqID)
			}
		}
		c.text(chat("used", "bob", `"first"`))
		if m := c.next(); m.Code != 0 || m.Seq != 1 {
			t.Errorf("repeated message: %+v", m)
		}
		c.text(chat("next", "bob", `"first"`))
		if m := c.next(); m.Code != 0 || m.Seq != 2 {
			t.Errorf("next message: %+v", m)
		}
	})
}

// Recipients with ids that would be dangerous in a subject or a key get their messages,
// and nobody else does; bodies that a store might not take come back byte for byte.
func TestHostileIdsAndBodies(t *testing.T) {
	onBothStores(t, func(t *testing.T, uri string) {
		ctx := testContext(t, 60*time.Second)
		s := start(t, uri)
		alice := newDevice(t, "alice", "phone", s.url(0))
		ids := []string{"*", ">", "a.b", "a/b", "a b", "d:alice:bob", "alice/1", "=2E", "$SYS", "\x00\n", "😀", strings.Repeat("é", 64)}
		var devices []*device
		for _, id := range ids {
			d := newDevice(t, id, "phone", s.url(1))
			d.awaitLogin(ctx, 1)
			devices = append(devices, d)
		}
		bodies := []string{`{"$where":"1","a.b":{"$set":1}}`, `[[1,[2,[3]]]]`, `"\u0000"`, `null`, `{"text":"<b>  é 😀"}`, `1e400`, `{"a":1,"a":2}`}
		n := 0
		for i, d := range devices {
			for _, body := range bodies {
				res := alice.stored(ctx, ids[i], json.RawMessage(body))
				n++
				d.awaitTotal(ctx, int(res.Seq))
			}
			alice.awaitTotal(ctx, n)
			d.stored(ctx, "alice", "back")
			n++
		}
		alice.awaitTotal(ctx, n)
		for _, d := range append(devices, alice) {
			d.check()
		}
		for _, d := range devices {
			got := d.messages()
			if len(got) != 1 {
				t.Errorf("%q has %d conversations, want 1", d.user, len(got))
			}
			for conv, msgs := range got {
				for i, body := range bodies {
					if msgs[i].body != body || msgs[i].from != "alice" {
						t.Errorf("%q got %+v, want %s", d.user, msgs[i], body)
					}
				}
				for i, m := range d.history(ctx, conv)[:len(bodies)] {
					if string(m.MsgBody) != bodies[i] {
						t.Errorf("%q: history has %s, want %s", d.user, m.MsgBody, bodies[i])
					}
				}
			}
		}
	})
}

// What ends a connection, with the close code, or refuses the handshake, with the status.
func TestBadConnections(t *testing.T) {
	s := start(t, servers.Ferret(t), "ALLOWED_ORIGINS=http://good.example")
	expired, err := devkeys.Token([]byte(secret), "alice", -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := devkeys.Token([]byte("another secret of more than 32 bytes"), "alice", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	good := token(t, "alice")
	bearer := func(tok string) http.Header { return http.Header{"Authorization": {"Bearer " + tok}} }
	login := func(tok string) func(*raw) { return func(c *raw) { c.text(loginText(tok)) } }
	after := func(f func(*raw)) func(*raw) {
		return func(c *raw) {
			c.text(loginText(good))
			c.next()
			f(c)
		}
	}
	for _, tc := range []struct {
		name   string
		path   string
		header http.Header
		do     func(*raw)
		code   int // close code, or HTTP status below 1000
	}{
		{name: "expired token in the login", do: login(expired), code: protocol.CloseTokenExpired},
		{name: "expired token in the handshake", header: bearer(expired), code: protocol.CloseTokenExpired},
		{name: "foreign token", do: login(foreign), code: protocol.CloseTokenRefused},
		{name: "no token at all", do: login("x"), code: protocol.CloseTokenRefused},
		{name: "path of another user", path: "/bob", do: login(good), code: protocol.CloseTokenRefused},
		{name: "path of another user, handshake", path: "/bob", header: bearer(good), code: protocol.CloseTokenRefused},
		{name: "first frame is no login", do: func(c *raw) { c.text(`{"msgType":3}`) }, code: protocol.CloseNotLogin},
		{name: "no login", code: protocol.CloseLoginTimeout},
		{name: "over maxFrame", do: after(func(c *raw) { c.text(strings.Repeat("x", protocol.MaxFrame+1)) }), code: 1009},
		{name: "unmasked", do: after(func(c *raw) { c.frame(ws.NewTextFrame([]byte(`{}`))) }), code: 1002},
		{name: "binary", do: after(func(c *raw) { c.frame(ws.MaskFrame(ws.NewBinaryFrame([]byte(`{}`)))) }), code: 1003},
		{name: "invalid UTF-8", do: after(func(c *raw) { c.text("\xff") }), code: 1007},
		{name: "bad origin", header: http.Header{"Origin": {"http://evil.example"}}, code: http.StatusForbidden},
		{name: "another path", path: "/../other", code: http.StatusNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, status := dialRaw(t, s.url(0)+tc.path, tc.header)
			if c == nil {
				if status != tc.code {
					t.Errorf("refused with %d, want %d", status, tc.code)
				}
				return
			}
			if tc.do != nil {
				tc.do(c)
			}
			if code := c.closeCode(); code != tc.code {
				t.Errorf("closed with %d, want %d", code, tc.code)
			}
		})
	}
	t.Run("good origin, user in the path, token in the handshake", func(t *testing.T) {
		c, status := dialRaw(t, s.url(1)+"/alice", http.Header{"Authorization": {"Bearer " + good}, "Origin": {"http://good.example"}})
		if c == nil {
			t.Fatalf("refused with %d", status)
		}
		if m := c.next(); m.MsgType != protocol.Login {
			t.Errorf("got %+v", m)
		}
	})
}
