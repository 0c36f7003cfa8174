package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/gobwas/ws"
)

// Play opens a WebSocket to addr, plays s, and says what was wrong. The whole takes at
// most patience.
func Play(addr string, s Script, patience time.Duration) error {
	return play(addr, s, patience, func(r io.Reader) io.Reader { return r })
}

// play is Play; through may change what comes from the server behind its 101.
func play(addr string, s Script, patience time.Duration, through func(io.Reader) io.Reader) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline := time.Now().Add(patience)
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	r, err := Open(conn)
	if err != nil {
		return err
	}
	p := &peer{conn: conn, deadline: deadline, r: NewReader(through(r))}
	for i, part := range s.Parts {
		if err := p.part(part, i == len(s.Parts)-1); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	return p.end(s.Code)
}

// Request is the sample request of RFC 6455 section 1.3.
func Request(host string) string {
	return "GET " + Path + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

// Open sends the sample request and checks its answer. Frames are read from what it
// returns.
func Open(conn net.Conn) (*bufio.Reader, error) {
	if _, err := io.WriteString(conn, Request(conn.RemoteAddr().String())); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	r := bufio.NewReader(conn)
	return r, CheckAnswer(r)
}

// CheckAnswer reads the answer to that request.
func CheckAnswer(r *bufio.Reader) error {
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	_ = answer.Body.Close() // a 101 has none
	if answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("the request was answered %s, accept %q", answer.Status, answer.Header.Get("Sec-WebSocket-Accept"))
	}
	return nil
}

// peer is the client's end of one connection.
type peer struct {
	conn     net.Conn
	deadline time.Time // of the whole
	r        *Reader
}

// quiet is how long nothing may arrive where nothing must.
const quiet = 100 * time.Millisecond

// part sends and reads at the same time: a large message fits no buffer. What is sent
// last may find nobody who reads it any more.
func (p *peer) part(part Part, last bool) error {
	sent := make(chan error, 1)
	go func() {
		_, err := p.conn.Write(part.Send)
		sent <- err
	}()
	for i, want := range part.Want {
		got, err := p.r.Next()
		if err != nil {
			return fmt.Errorf("event %d, want %s: %w", i+1, want, err)
		}
		if got != want {
			return fmt.Errorf("event %d is %s, want %s", i+1, got, want)
		}
	}
	if last {
		return nil
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if part.Quiet {
		return p.nothing()
	}
	return nil
}

func (p *peer) nothing() error {
	if err := p.conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		return err
	}
	if b, err := p.r.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("something came too early: %x, %w", b, err)
	}
	return p.conn.SetReadDeadline(p.deadline)
}

// end reads the close frame and the end of TCP: the server must be the one that ends it
// (RFC 6455 section 7.1.1), and not with a reset, which may destroy what is on its way.
func (p *peer) end(code ws.StatusCode) error {
	ev, err := p.r.Next()
	if err != nil {
		return fmt.Errorf("want a close frame of %d: %w", code, err)
	}
	if ev.Op != ws.OpClose {
		return fmt.Errorf("want a close frame of %d, not %s", code, ev)
	}
	got, _, err := ev.Close()
	if err != nil {
		return err
	}
	if got != code {
		return fmt.Errorf("the close code is %d, want %d", got, code)
	}
	if b, err := p.r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("behind the close frame comes %#x, %v, not the end of TCP", b, err)
	}
	return nil
}
