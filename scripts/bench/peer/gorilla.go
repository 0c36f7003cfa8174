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

// registry holds a server's connections for Fanout.
type registry[C comparable] struct {
	mu  sync.Mutex
	all map[C]struct{}
}

func (r *registry[C]) add(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[C]struct{}{}
	}
	r.all[c] = struct{}{}
}

func (r *registry[C]) remove(c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
}

// each calls f for every connection, one call of each at a time.
func (r *registry[C]) each(f func(C)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.all {
		f(c)
	}
}
