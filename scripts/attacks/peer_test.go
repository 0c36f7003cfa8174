package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/attacks/site"
	"github.com/wirepost/wirepost/shared/protocol"
)

// peer is one client that does what a test says.
type peer struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
}

// knock sends a request as it is and returns the answer, which is not 101.
func knock(t *testing.T, s *site.Site, request []byte) (status int, header http.Header) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}

// dial opens a WebSocket; tok may be empty.
func dial(t *testing.T, s *site.Site, tok string) (*peer, error) {
	t.Helper()
	d := ws.Dialer{Timeout: 10 * time.Second}
	if tok != "" {
		d.Header = ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + tok}})
	}
	conn, br, _, err := d.Dial(context.Background(), "ws://"+s.Addr+"/ws")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	if br == nil {
		br = bufio.NewReader(conn)
	}
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &peer{t, conn, br}, nil
}

// login opens a WebSocket and takes the login reply.
func login(t *testing.T, s *site.Site, tok string) *peer {
	t.Helper()
	p, err := dial(t, s, tok)
	if err != nil {
		t.Fatal(err)
	}
	p.reply()
	return p
}

func (p *peer) reply() {
	p.t.Helper()
	b, code := p.next()
	var m protocol.Message
	if err := json.Unmarshal(b, &m); err != nil || m.MsgType != protocol.Login {
		p.t.Fatalf("no login reply but %q, close code %d", b, code)
	}
}

// next returns the next text, or the code of the close frame: 1006 for an end without one.
func (p *peer) next() (text []byte, code int) {
	p.t.Helper()
	for {
		h, err := ws.ReadHeader(p.br)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			p.t.Fatal("nothing comes")
		}
		if err != nil {
			return nil, 1006
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(p.br, b); err != nil {
			return nil, 1006
		}
		switch h.OpCode {
		case ws.OpText:
			return b, 0
		case ws.OpClose:
			status, _ := ws.ParseCloseFrameData(b)
			return nil, int(status)
		}
	}
}

// closed returns the code of the close frame, whatever comes before it.
func (p *peer) closed() int {
	p.t.Helper()
	for {
		if _, code := p.next(); code != 0 {
			return code
		}
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// alive says that a heartbeat is answered.
func (p *peer) alive() {
	p.t.Helper()
	p.write(ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"msgType":1}`)))))
	b, code := p.next()
	var m protocol.Message
	if err := json.Unmarshal(b, &m); err != nil || m.MsgType != protocol.Heartbeat {
		p.t.Fatalf("a heartbeat is answered with %q, close code %d", b, code)
	}
}
