package lane_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// sieve is a proxy between a client and a nats-server that takes single messages out of
// what the server sends, as a route between two servers does that is cut for a moment.
type sieve struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	drop  func(line string) bool // of the line that announces a message; nil: none
	conns []net.Conn
}

func newSieve(t *testing.T, to string) *sieve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sieve{l: l, to: to}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			s.mu.Lock()
			s.conns = append(s.conns, in, out)
			s.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			wg.Go(func() { s.pass(out, in); _ = in.Close() })
		}
	})
	return s
}

func (s *sieve) url() string { return "nats://" + s.l.Addr().String() }

// dropOnce takes the next message out whose announcing line fits.
func (s *sieve) dropOnce(fits func(line string) bool) (dropped <-chan struct{}) {
	done := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = func(line string) bool {
		if !fits(line) {
			return false
		}
		s.drop = nil
		close(done)
		return true
	}
	return done
}

// pass forwards the server's side of the protocol: lines, and behind those that begin
// with MSG or HMSG as many bytes as their last word says.
func (s *sieve) pass(from, to net.Conn) {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		out := line
		if bytes.HasPrefix(line, []byte("MSG ")) || bytes.HasPrefix(line, []byte("HMSG ")) {
			words := bytes.Fields(line)
			size, err := strconv.Atoi(string(words[len(words)-1]))
			if err != nil {
				return
			}
			out = append(out, make([]byte, size+2)...)
			if _, err := io.ReadFull(in, out[len(line):]); err != nil {
				return
			}
			s.mu.Lock()
			gone := s.drop != nil && s.drop(string(line))
			s.mu.Unlock()
			if gone {
				continue
			}
		}
		if _, err := to.Write(out); err != nil {
			return
		}
	}
}
