package lane_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// sieve is a proxy between a client and a nats-server that takes single messages out of
// what either sends, as a route between two servers does that is cut for a moment.
type sieve struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	drop  func(line, payload string) bool // of a message, and of the line that announces it; nil: none
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
			wg.Go(func() { s.pass(in, out); _ = out.Close() })
			wg.Go(func() { s.pass(out, in); _ = in.Close() })
		}
	})
	return s
}

func (s *sieve) url() string { return "nats://" + s.l.Addr().String() }

// dropAll takes out every message that fits; nil ends it.
func (s *sieve) dropAll(fits func(line, payload string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = fits
}

// dropOnce takes the next message out whose announcing line fits.
func (s *sieve) dropOnce(fits func(line string) bool) (dropped <-chan struct{}) {
	done := make(chan struct{})
	s.dropAll(func(line, _ string) bool {
		if !fits(line) {
			return false
		}
		s.drop = nil
		close(done)
		return true
	})
	return done
}

// announces are the words with which a line begins that a message follows.
var announces = []string{"MSG", "HMSG", "PUB", "HPUB"}

// pass forwards one side of the protocol: lines, and behind those that announce a message
// as many bytes as their last word says.
func (s *sieve) pass(from, to net.Conn) {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		out := line
		if words := bytes.Fields(line); len(words) > 2 && slices.Contains(announces, string(words[0])) {
			size, err := strconv.Atoi(string(words[len(words)-1]))
			if err != nil {
				return
			}
			out = append(out, make([]byte, size+2)...)
			if _, err := io.ReadFull(in, out[len(line):]); err != nil {
				return
			}
			s.mu.Lock()
			gone := s.drop != nil && s.drop(string(line), string(out[len(line):]))
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
