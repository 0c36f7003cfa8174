package socket

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/handshake"
)

// echoInside is the echo, and a way to run a test's function on a connection's loop.
type echoInside struct {
	echo
	run  chan func(*Conn)
	conn chan *Conn // that was opened
}

func (e *echoInside) opened(c *Conn, token string) { e.echo.opened(c, token); e.conn <- c }
func (e *echoInside) posted(c *Conn, _ *message)   { (<-e.run)(c) }

// echoOnLoop runs f on the loop of an open connection to an echo, and returns what the
// peer of that connection got of it: n bytes.
func echoOnLoop(t *testing.T, n int, f func(*Conn)) []byte {
	t.Helper()
	above := &echoInside{run: make(chan func(*Conn), 1), conn: make(chan *Conn, 1)}
	above.lim = bounds{maxMessage: 16 << 20, maxFragments: 1<<16 + 1}
	cfg := Config{Rules: handshake.Rules{Prefix: "/ws"}, Loops: 1, Limits: Limits{Frame: 16 << 20, Fragments: 1<<16 + 1}}
	cfg.setDefaults()
	s, err := newServer(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}, func(*Server) layer { return above })
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- s.Serve(Listener{Listener: ln}) }()
	defer func() { s.Abort(); <-end }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, _, err := (ws.Dialer{}).Upgrade(conn, mustURL("ws://a/ws")); err != nil {
		t.Fatal(err)
	}
	above.run <- f
	c := <-above.conn
	c.k.loop.Post(message{c: c, kind: mTest})
	got := make([]byte, n)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestLargeMessagesByteByByte cuts messages of 4 to 16 MiB at every byte: Autobahn's
// 9.1.4 to 9.1.6, 9.2.4 to 9.2.6, 9.3 and 9.4. A read for each of their 150 million bytes
// would take minutes, so the bytes are fed on the loop, one by one, each with the end of
// a turn, as if a read had brought it. scripts/conformance has all cases over TCP.
func TestLargeMessagesByteByByte(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("150 million bytes one by one; without -short and the race detector they are")
	}
	const mib = 1 << 20
	for i, kind := range []struct {
		op      ws.OpCode
		pattern string
	}{{ws.OpText, "BAsd7&jh23"}, {ws.OpBinary, "\x00\xfe\x23\xfa\xf0"}} {
		for n, size := range []int{4 * mib, 8 * mib, 16 * mib} {
			t.Run(fmt.Sprintf("9.%d.%d", i+1, n+4), func(t *testing.T) { byteByByte(t, kind.op, kind.pattern, size, size) })
		}
		for n := range 9 {
			t.Run(fmt.Sprintf("9.%d.%d", i+3, n+1), func(t *testing.T) { byteByByte(t, kind.op, kind.pattern, 4*mib, 64<<(2*n)) })
		}
	}
}

// byteByByte sends size bytes in fragments of at most part.
func byteByByte(t *testing.T, op ws.OpCode, pattern string, size, part int) {
	t.Helper()
	text := strings.Repeat(pattern, size/len(pattern)+1)[:size]
	var stream []byte
	for at := 0; at < size; at += part {
		first := byte(op)
		if at > 0 {
			first = byte(ws.OpContinuation)
		}
		if part >= size {
			first |= 0x80
		}
		stream = append(stream, masked(first, text[at:min(at+part, size)])...)
	}
	if part < size {
		stream = append(stream, masked(0x80|byte(ws.OpContinuation), "")...) // as the suite does
	}
	head := len(appendHead(nil, op, size))
	got := echoOnLoop(t, head+size, func(c *Conn) {
		for i := range stream {
			taken(c, stream[i:i+1])
		}
	})
	if want := string(appendHead(nil, op, size)); string(got[:head]) != want {
		t.Errorf("the echo's head is % x, want % x", got[:head], want)
	}
	if string(got[head:]) != text {
		t.Error("another text came back")
	}
}
