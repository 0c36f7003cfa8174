package tap

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Insert is one document that the server acknowledged: the values of the key fields.
type Insert struct{ From, CID string }

// Tap passes connections on to one server. Close ends it.
type Tap struct {
	target     string
	collection string
	done       func(list []Insert, at time.Time)
	l          net.Listener

	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// Start listens on a free port of 127.0.0.1 for clients of target. done is called for
// every insert command into the collection, with the documents (fields "from" and "cid")
// that its reply acknowledges and the moment when the reply came by; it is called from
// several goroutines and must not block.
func Start(target, collection string, done func(list []Insert, at time.Time)) (*Tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the store's tap: %w", err)
	}
	t := &Tap{target: target, collection: collection, done: done, l: l, conns: map[net.Conn]bool{}}
	t.wg.Go(t.accept)
	return t, nil
}

// Addr is where clients connect.
func (t *Tap) Addr() string { return t.l.Addr().String() }

// Close cuts every connection and returns when nothing runs any more.
func (t *Tap) Close() {
	t.mu.Lock()
	t.closed = true
	_ = t.l.Close()
	for c := range t.conns {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

func (t *Tap) accept() {
	for {
		c, err := t.l.Accept()
		if err != nil {
			return
		}
		t.wg.Go(func() { t.pass(c) })
	}
}

// keep registers a connection that Close cuts; false: it is too late.
func (t *Tap) keep(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.conns[c] = true
	}
	return !t.closed
}

func (t *Tap) drop(c net.Conn) {
	t.mu.Lock()
	delete(t.conns, c)
	t.mu.Unlock()
	_ = c.Close()
}

// pass connects a client with the server until either goes.
func (t *Tap) pass(client net.Conn) {
	defer t.drop(client)
	if !t.keep(client) {
		return
	}
	server, err := net.Dial("tcp", t.target)
	if err != nil {
		return
	}
	defer t.drop(server)
	if !t.keep(server) {
		return
	}
	w := watcher{tap: t, asked: map[int32]insert{}}
	back := make(chan struct{}) // closed when the server's side has ended
	go func() {
		defer close(back)
		w.copy(client, server, w.reply)
		_ = client.Close()
	}()
	w.copy(server, client, w.request)
	_ = server.Close()
	<-back
}

// watcher looks at one connection.
type watcher struct {
	tap *Tap

	mu    sync.Mutex
	asked map[int32]insert // by request id: waits for the reply
}

// copy passes bytes on as they come, each piece after a look at the messages that it ends.
func (w *watcher) copy(dst io.Writer, src io.Reader, look func(h header, body []byte)) {
	var f framer
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			f.feed(buf[:n], look)
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *watcher) request(h header, body []byte) {
	if h.opCode != opMsg {
		return
	}
	if in, ok := parseInsert(body, w.tap.collection); ok {
		w.mu.Lock()
		w.asked[h.requestID] = in
		w.mu.Unlock()
	}
}

func (w *watcher) reply(h header, body []byte) {
	w.mu.Lock()
	in, ok := w.asked[h.responseTo]
	delete(w.asked, h.responseTo)
	w.mu.Unlock()
	if !ok || h.opCode != opMsg {
		return
	}
	if stored := in.stored(body); len(stored) > 0 {
		w.tap.done(stored, time.Now())
	}
}
