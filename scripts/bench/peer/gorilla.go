package peer

import (
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

// serveGorilla: one goroutine a connection, write buffers from a pool, a prepared message
// for everybody.
func serveGorilla(m Mode, addr string) error {
	up := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}
	var all registry[*websocket.Conn]
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		all.expect(m)
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return // it was answered
		}
		defer func() { _ = c.Close() }()
		if m == Fanout {
			all.add(c)
			defer all.remove(c)
		}
		for {
			op, b, err := c.ReadMessage()
			if err != nil {
				return
			}
			if m == Echo {
				err = c.WriteMessage(op, b)
			} else if p, perr := websocket.NewPreparedMessage(op, b); perr == nil {
				all.each(func(c *websocket.Conn) { _ = c.WritePreparedMessage(p) })
			}
			if err != nil {
				return
			}
		}
	})
	return http.ListenAndServe(addr, nil)
}

// registry holds a server's connections for Fanout. The libraries give a connection out
// when its handshake is answered: the client may know it first.
type registry[C comparable] struct {
	mu      sync.Mutex
	all     map[C]struct{}
	arrived sync.Cond // there are no more coming
	coming  int       // whose handshake is being answered; no client of a benchmark fails at that
}

// expect announces a connection before its handshake is answered.
func (r *registry[C]) expect(m Mode) {
	if m != Fanout {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.coming++
}

func (r *registry[C]) add(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[C]struct{}{}
	}
	r.all[c] = struct{}{}
	if r.coming--; r.coming == 0 && r.arrived.L != nil {
		r.arrived.Broadcast()
	}
}

func (r *registry[C]) remove(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
}

// each calls f for every connection, one call of each at a time, those included whose
// handshake is being answered.
func (r *registry[C]) each(f func(C)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrived.L = &r.mu
	for r.coming > 0 {
		r.arrived.Wait()
	}
	for c := range r.all {
		f(c)
	}
}
