package lane_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wirepost/wirepost/worker/streams"
)

// A worker's request for messages is lost on the way, as when a route between two servers
// is cut, and nothing tells it; those by which it keeps its pin are answered. It asks
// again: a lane whose owner waits for ever is nobody's.
func TestLostPullsAreSentAgain(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	f := newForgetful(t, s.server.URL())
	st := newStore()
	w := s.startOn(s.connect(f.url()), "w1", &business{st: st})
	p := s.sender(users(2)...)
	p.send(10)
	st.await(s, p.total())
	f.forget.Store(true)
	eventually(s, "two pulls are lost", func() bool { return f.lost.Load() >= 2 })
	p.send(10)
	f.forget.Store(false)
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	if n := w.metric(t, takeOvers); n > 1 {
		t.Errorf("%v take-overs: the lane was not kept", n)
	}
}

// keepsPin is in a request that asks for nothing.
var keepsPin = []byte(`"max_bytes":1,`)

// forgetful is a proxy of a nats-server that loses pull requests while it is told to, but
// not those that only keep a pin.
type forgetful struct {
	to     string
	l      net.Listener
	forget atomic.Bool
	lost   atomic.Int64
}

func newForgetful(t *testing.T, url string) *forgetful {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{to: url[len("nats://"):], l: l}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", f.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			wg.Go(func() { f.requests(out, in); _ = out.Close() })
			wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	return f
}

func (f *forgetful) url() string { return "nats://" + f.l.Addr().String() }

// requests passes on what a client sends, message by message.
func (f *forgetful) requests(to io.Writer, from io.Reader) {
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		whole := line
		if word := bytes.Fields(line); len(word) > 2 && (string(word[0]) == "PUB" || string(word[0]) == "HPUB") {
			n, err := strconv.Atoi(string(word[len(word)-1]))
			if err != nil {
				return
			}
			payload := make([]byte, n+2)
			if _, err := io.ReadFull(r, payload); err != nil {
				return
			}
			whole = append(whole, payload...)
			if bytes.Contains(word[1], []byte("CONSUMER.MSG.NEXT")) && !bytes.Contains(payload, keepsPin) && f.forget.Load() {
				f.lost.Add(1)
				continue
			}
		}
		if _, err := to.Write(whole); err != nil {
			return
		}
	}
}
