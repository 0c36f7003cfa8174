package feed

import (
	"net"
	"sync"
	"time"

	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// sidLetter begins the ids of our subscriptions; nats.go's are decimal numbers.
	sidLetter = 'u'
	// writeTimeout is how long the network may take a write.
	writeTimeout = 10 * time.Second
	// flushAt is how many bytes of subscriptions wait for nats.go to write something.
	flushAt = 32 << 10
)

// wire is one connection between nats.go and a server.
//
// nats.go reads by one goroutine, and writes whole operations: its buffer is flushed
// between two of them only. So subscriptions may be written wherever a write of its begins.
type wire struct {
	net.Conn
	f *Feed

	done chan struct{} // closed by Close
	once sync.Once

	// Owned by who reads.
	home  chan *Batch // released batches
	cur   *Batch      // that is being filled
	pass  []byte      // for nats.go
	past  int         // of pass, up to here taken
	ready bool        // the server has answered once

	mu  sync.Mutex
	out []byte // subscriptions that are not written yet
}

func newWire(f *Feed, c net.Conn) *wire {
	w := &wire{Conn: c, f: f, done: make(chan struct{}), home: make(chan *Batch, batches), cur: &Batch{}}
	w.cur.home = w.home
	w.cur.reset(nil, 0)
	for range batches - 1 {
		w.home <- &Batch{home: w.home}
	}
	return w
}

// Close is net.Conn; it also ends a Read that waits for the owner.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.done) })
	return w.Conn.Close()
}

// Read is net.Conn: it returns what is nats.go's, and hands frames over on the way. An
// error of the protocol makes nats.go connect anew.
func (w *wire) Read(b []byte) (int, error) {
	for w.past == len(w.pass) {
		w.pass, w.past = w.pass[:0], 0
		if cap(w.pass) > bufferSize {
			w.pass = nil
		}
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, w.pass[w.past:])
	w.past += n
	return n, nil
}

// fill reads once.
func (w *wire) fill() error {
	b := w.cur
	n, err := w.Conn.Read(b.buf[len(b.buf):cap(b.buf)])
	if n == 0 && err != nil {
		return err
	}
	b.buf = b.buf[:len(b.buf)+n]
	used, need, err := w.parse(b)
	if err != nil {
		return err
	}
	if len(b.Frames) == 0 {
		b.shift(used, need)
		return nil
	}
	return w.handOver(used, need)
}

// parse sorts the whole operations in b. It returns how many bytes they have, and how many
// the next one needs.
func (w *wire) parse(b *Batch) (used, need int, err error) {
	for {
		f, kind, n, need, err := next(b.buf[used:])
		if n == 0 || err != nil {
			return used, need, err
		}
		if kind == opFrame {
			b.Frames = append(b.Frames, f)
		} else {
			w.pass = append(w.pass, b.buf[used:used+n]...)
		}
		if kind == opPong && !w.ready {
			w.ready = true
			w.f.greeted(w)
		}
		used += n
	}
}

// handOver gives the batch to the owner and goes on with the next one, as soon as there is
// one.
func (w *wire) handOver(used, need int) error {
	b := w.cur
	select {
	case w.cur = <-w.home:
	case <-w.done:
		return net.ErrClosed
	}
	w.cur.reset(b.buf[used:], need)
	select {
	case w.f.batches <- b:
		return nil
	case <-w.done: // the owner may be gone, too
		return net.ErrClosed
	}
}

// Write is net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if len(w.out) > 0 {
		w.out = append(w.out, b...)
		err = w.flush()
	} else {
		err = w.write(b)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDeadline is net.Conn, for reading alone: each write has a deadline of its own.
func (w *wire) SetDeadline(t time.Time) error { return w.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing, see SetDeadline.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// subscribe appends
//
//	SUB <subject> <sid>
func (w *wire) subscribe(shard int, user userid.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(w.out, "SUB "...)
	b = subject.AppendLive(b, shard, user)
	w.queue(append(b, ' '), user)
}

// unsubscribe appends
//
//	UNSUB <sid>
func (w *wire) unsubscribe(user userid.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue(append(w.out, "UNSUB "...), user)
}

// queue ends an operation with the sid. w.mu is held.
func (w *wire) queue(b []byte, user userid.ID) {
	b = append(append(b, sidLetter), user.Token()...)
	if w.out = append(b, "\r\n"...); len(w.out) >= flushAt {
		_ = w.flush() // the connection is closed then, and nats.go finds out
	}
}

// flush writes out. w.mu is held.
func (w *wire) flush() error {
	b := w.out
	if w.out = b[:0]; cap(b) > 2*flushAt {
		w.out = nil
	}
	return w.write(b)
}

// write writes b, or closes the connection. w.mu is held.
func (w *wire) write(b []byte) error {
	err := w.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = w.Conn.Write(b)
	}
	if err != nil {
		_ = w.Close()
	}
	return err
}
