package gen

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// server is a WebSocket server whose tests say what happens to the n-th message, from 0.
// Writes of one connection are serialized.
type server struct {
	url    string
	handle func(n int, from *peer, msg []byte)

	mu    sync.Mutex
	peers []*peer
	n     int
}

type peer struct {
	*server
	conn *websocket.Conn
	mu   sync.Mutex // of writes
}

func (p *peer) send(msg []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.WriteMessage(websocket.TextMessage, msg) // the generator says when it is gone
}

// other returns the other one of two connections.
func (p *peer) other() *peer {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	if p.peers[0] == p {
		return p.peers[1]
	}
	return p.peers[0]
}

func serve(t *testing.T, handle func(n int, from *peer, msg []byte)) *server {
	t.Helper()
	s := &server{handle: handle}
	up := websocket.Upgrader{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		p := &peer{server: s, conn: conn}
		s.mu.Lock()
		s.peers = append(s.peers, p)
		s.mu.Unlock()
		for {
			_, msg, err := conn.ReadMessage()
			if err != nil {
				return
			}
			s.mu.Lock()
			n := s.n
			s.n++
			s.mu.Unlock()
			s.handle(n, p, msg)
		}
	}))
	t.Cleanup(h.Close)
	s.url = "ws" + strings.TrimPrefix(h.URL, "http")
	return s
}

// have opens n connections to a server and has one job done.
func have(t *testing.T, s *server, n int, patience time.Duration, c Command) Result {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Run(Options{URL: s.url, Dialect: Plain, Conns: n, patience: patience}, inR, outW)
		_ = outW.CloseWithError(io.EOF)
		done <- err
	}()
	t.Cleanup(func() {
		_ = inW.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	say, hear := json.NewEncoder(inW), json.NewDecoder(outR)
	var r Result
	for _, c := range []Command{{Do: Open, N: n}, c} {
		if err := say.Encode(c); err != nil {
			t.Fatal(err)
		}
		r = Result{}
		if err := hear.Decode(&r); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// An answer that does not come is an error, and no figure.
func TestMissingAnswerEndsTheRun(t *testing.T) {
	s := serve(t, func(n int, from *peer, msg []byte) {
		if n != 5 {
			from.send(msg)
		}
	})
	for _, rate := range []float64{0, 200} {
		r := have(t, s, 2, 200*time.Millisecond, Command{Do: Ask, N: 2, Rate: rate, For: 100 * time.Millisecond})
		if rate == 0 && !strings.Contains(r.Err, errSlow.Error()) || rate > 0 && (r.Err != "" || r.Count != 20) {
			t.Errorf("rate %v: %+v", rate, r)
		}
	}
}

// A server that stands still makes all late that was due meanwhile: latencies count from
// when a message was due, not from when it could be sent.
func TestLatencyCountsFromWhenItWasDue(t *testing.T) {
	const still = 500 * time.Millisecond
	s := serve(t, func(n int, from *peer, msg []byte) {
		if n == 0 {
			time.Sleep(still) // that is the fault
		}
		from.send(msg)
	})
	r := have(t, s, 1, patience, Command{Do: Ask, N: 1, Rate: 100, For: 600 * time.Millisecond})
	if r.Err != "" || r.Count != 60 {
		t.Fatalf("%+v", r)
	}
	// Due every 10 ms, they waited 500, 490, 480 … ms.
	if r.P50 < 150*time.Millisecond || r.P99 < still-20*time.Millisecond || r.P99 < r.P50+100*time.Millisecond {
		t.Errorf("p50 %v, p99 %v", r.P50, r.P99)
	}
}

// A chat ends when each message has reached its recipient, too.
func TestChatAwaitsDeliveries(t *testing.T) {
	const later = 150 * time.Millisecond
	s := serve(t, func(_ int, from *peer, msg []byte) {
		from.send(msg)
		time.AfterFunc(later, func() { from.other().send(msg) })
	})
	r := have(t, s, 2, patience, Command{Do: Chat, N: 2, For: 100 * time.Millisecond})
	if r.Err != "" || r.Count < 2 || r.Delivered != r.Count {
		t.Errorf("%+v", r)
	}
}

// A refusal is no answer.
func TestRefusalEndsTheChat(t *testing.T) {
	s := serve(t, func(_ int, from *peer, msg []byte) {
		from.send([]byte(strings.Replace(string(msg), "{", `{"code":2000,`, 1)))
	})
	if r := have(t, s, 2, patience, Command{Do: Chat, N: 2, For: time.Second}); !strings.Contains(r.Err, errServer.Error()) {
		t.Errorf("%+v", r)
	}
}

// A connection that ends is an error at once, not an answer that is late.
func TestLostConnectionEndsTheRun(t *testing.T) {
	s := serve(t, func(n int, from *peer, msg []byte) {
		if n == 3 {
			_ = from.conn.Close()
			return
		}
		from.send(msg)
	})
	if r := have(t, s, 2, time.Second, Command{Do: Ask, N: 2, For: 100 * time.Millisecond}); !strings.Contains(r.Err, errServer.Error()) {
		t.Errorf("%+v", r)
	}
}
