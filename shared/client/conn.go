package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	closeNormal   = 1000
	closeNoStatus = 1005 // the peer's close frame had no code; never on the wire
	closeAbnormal = 1006 // no close frame came; never on the wire
	closeProtocol = 1002
	closeTooBig   = 1009

	dialTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	closeTimeout = time.Second
	// maxMessage is the largest message taken from the gateway, in bytes: a page of
	// history (protocol.MaxPageBytes) may be exceeded by one message.
	maxMessage = 1 << 20
)

var (
	errDeadPeer = errors.New("nothing was heard for 2.5 heartbeat intervals")
	errTooBig   = errors.New("the gateway's message is larger than 1 MiB")
	errFraming  = errors.New("the gateway broke the WebSocket protocol")
)

// inFrame is what the reader hands to Run: a text message, a ping, or why it ended.
type inFrame struct {
	text []byte // owned by the receiver
	ping []byte // payload of a ping; nil for none
	err  error  // the last one; *ClosedError when the peer closed
}

// conn is one WebSocket connection: a reader and a writer goroutine. Run owns it.
type conn struct {
	nc     net.Conn
	br     *bufio.Reader // reader's
	part   []byte        // reader's: the message so far
	open   bool          // reader's: a fragmented message is under way
	heard  atomic.Int64  // Unix nanoseconds of the last byte read; reader writes, Run reads
	frames chan inFrame  // from reader to Run, unbuffered; never closed
	writes chan []byte   // from Run to writer: whole frames' payloads; never closed
	quit   chan struct{} // closed by Run: both goroutines end

	// Owned by Run.

	unwritten [][]byte // not yet taken by the writer
	closed    bool
	closeCode int // what the writer says at the end; written before quit is closed
}

// Read counts every byte as a sign of life. It is called by the reader alone.
func (l *conn) Read(p []byte) (int, error) {
	n, err := l.nc.Read(p)
	if n > 0 {
		l.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// begin starts the goroutines on a connection whose handshake is done. early holds
// bytes that came behind the handshake's answer, or is nil.
func (c *Client) begin(nc net.Conn, early []byte) *conn {
	l := &conn{nc: nc, frames: make(chan inFrame), writes: make(chan []byte, 16), quit: make(chan struct{})}
	l.heard.Store(time.Now().UnixNano())
	l.br = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), l), 4096)
	c.work.Go(l.readAll)
	c.work.Go(l.writeAll)
	return l
}

func (l *conn) write(payload []byte) { l.unwritten = append(l.unwritten, payload) }

// written notes that the writer took the first unwritten frame.
func (l *conn) written() {
	l.unwritten[0] = nil
	l.unwritten = l.unwritten[1:]
}

// close ends both goroutines; the writer says code to the peer first, for at most
// closeTimeout. Codes that may not be on the wire are not said.
func (l *conn) close(code int) {
	if l.closed {
		return
	}
	l.closed, l.closeCode = true, code
	_ = l.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
	close(l.quit)
}

func (l *conn) readAll() {
	for {
		f, err := l.readMessage()
		if err != nil {
			f = inFrame{err: err}
		}
		select {
		case l.frames <- f:
		case <-l.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// readMessage returns the next message or ping.
func (l *conn) readMessage() (inFrame, error) {
	for {
		h, err := ws.ReadHeader(l.br)
		if err != nil {
			return inFrame{}, err
		}
		if err := l.check(h); err != nil {
			return inFrame{}, err
		}
		if h.OpCode.IsControl() {
			ping, err := l.control(h)
			if ping != nil || err != nil {
				return inFrame{ping: ping}, err
			}
			continue
		}
		n := len(l.part)
		l.part = append(l.part, make([]byte, h.Length)...)
		if _, err := io.ReadFull(l.br, l.part[n:]); err != nil {
			return inFrame{}, err
		}
		if l.open = !h.Fin; l.open {
			continue
		}
		text := l.part
		l.part = nil
		if !utf8.Valid(text) {
			return inFrame{}, errFraming
		}
		return inFrame{text: text}, nil
	}
}

// check is RFC 6455 section 5 for what a server may send, and this client's limit. The
// protocol has text messages alone.
func (l *conn) check(h ws.Header) error {
	switch {
	case h.Masked, h.Rsv != 0, h.OpCode.IsReserved(), h.OpCode == ws.OpBinary:
		return errFraming
	case h.OpCode.IsControl() && (!h.Fin || h.Length > ws.MaxControlFramePayloadSize):
		return errFraming
	case h.OpCode.IsData() && l.open != (h.OpCode == ws.OpContinuation):
		return errFraming
	case h.OpCode.IsData() && h.Length > int64(maxMessage-len(l.part)):
		return errTooBig
	}
	return nil
}

// control reads a control frame: a ping is returned, a close is an error.
func (l *conn) control(h ws.Header) (ping []byte, err error) {
	p := make([]byte, h.Length)
	if _, err := io.ReadFull(l.br, p); err != nil {
		return nil, err
	}
	switch h.OpCode {
	case ws.OpPing:
		return p, nil
	case ws.OpClose:
		if len(p) < 2 {
			return nil, &ClosedError{Code: closeNoStatus}
		}
		code, reason := ws.ParseCloseFrameData(p)
		return nil, &ClosedError{Code: int(code), Reason: reason}
	}
	return nil, nil // a pong
}

func (l *conn) writeAll() {
	defer func() { _ = l.nc.Close() }() // ends the reader too
	bw := bufio.NewWriter(l.nc)
	for {
		select {
		case p := <-l.writes:
			_ = l.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
			if l.writeBatch(bw, p) != nil {
				return
			}
		case <-l.quit:
			if l.closeCode != closeAbnormal && l.closeCode != closeNoStatus {
				_ = l.nc.SetWriteDeadline(time.Now().Add(closeTimeout))
				body := ws.NewCloseFrameBody(ws.StatusCode(l.closeCode), "")
				_ = ws.WriteFrame(l.nc, ws.MaskFrame(ws.NewCloseFrame(body)))
			}
			return
		}
	}
}

// pong marks a payload in writes that is a pong's: a text message is never empty, and
// never begins with NUL.
const pong = 0

// writeBatch writes p and what else waits, with one flush.
func (l *conn) writeBatch(bw *bufio.Writer, p []byte) error {
	for {
		f := ws.NewTextFrame(p)
		if p[0] == pong {
			f = ws.NewPongFrame(p[1:])
		}
		if err := ws.WriteFrame(bw, ws.MaskFrame(f)); err != nil { // MaskFrame copies: p is sent again
			return err
		}
		select {
		case p = <-l.writes:
		default:
			return bw.Flush()
		}
	}
}

// dialed is the outcome of a dial: a connection on which nothing was sent yet.
type dialed struct {
	nc         net.Conn
	early      []byte
	retryAfter time.Duration // the gateway's wish when it refused the handshake
	err        error
}

// dial connects and shakes hands; bearer goes into the handshake unless it is empty.
func (c *Client) dial(ctx context.Context, url, bearer string) (d dialed) {
	header := c.opts.Header.Clone()
	if bearer != "" {
		if header == nil {
			header = http.Header{}
		}
		header.Set("Authorization", "Bearer "+bearer)
	}
	dialer := ws.Dialer{Timeout: dialTimeout, Protocols: []string{protocol.Subprotocol},
		NetDial: c.opts.NetDial, Header: ws.HandshakeHeaderHTTP(header),
		OnStatusError: func(_ int, _ []byte, resp io.Reader) { d.retryAfter = retryAfter(resp) }}
	nc, br, _, err := dialer.Dial(ctx, url)
	if err != nil {
		d.err = fmt.Errorf("connect to %s: %w", url, err)
		return d
	}
	d.nc = nc
	if br != nil { // bytes that came with the handshake's answer; the buffer stays here
		d.early, _ = br.Peek(br.Buffered())
	}
	return d
}

// retryAfter reads the Retry-After header (seconds) of a refused handshake.
func retryAfter(resp io.Reader) time.Duration {
	r, err := http.ReadResponse(bufio.NewReader(resp), nil)
	if err != nil {
		return 0
	}
	_ = r.Body.Close()
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 300)) * time.Second
}

// closeOf is the close code and the error that the end of a connection stands for.
func closeOf(err error) (code int, _ error) {
	var closed *ClosedError
	switch {
	case errors.As(err, &closed):
		return closed.Code, err
	case errors.Is(err, errFraming):
		return closeAbnormal, err
	}
	return closeAbnormal, fmt.Errorf("connection lost: %w", err)
}
