package differential

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// memory is a connection without a network. Its peer sends a request, waits until that
// is accepted, sends frames, and is gone; it reads at the end.
//
// gorilla refuses a client that sends frames before it has the answer, so they are held
// back until release. What waits meanwhile is woken by a deadline, as net/http does when
// it hands a connection over.
type memory struct {
	done    chan struct{} // closed by Close; then out and request may be read
	out     bytes.Buffer
	request *http.Request // as net/http understood it; nil: it did not

	mu       sync.Mutex
	moved    sync.Cond
	head     strings.Reader
	frames   bytes.Reader
	released bool
	expired  bool
	closed   bool
}

func newMemory(request string, frames []byte) *memory {
	m := &memory{done: make(chan struct{})}
	m.moved.L = &m.mu
	m.head.Reset(request)
	m.frames.Reset(frames)
	return m
}

func (m *memory) Read(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		switch {
		case m.closed:
			return 0, net.ErrClosed
		case m.expired:
			return 0, os.ErrDeadlineExceeded
		case m.head.Len() > 0:
			return m.head.Read(b)
		case m.released:
			return m.frames.Read(b)
		}
		m.moved.Wait()
	}
}

func (m *memory) Write(b []byte) (int, error) { return m.out.Write(b) }

func (m *memory) set(change func()) {
	m.mu.Lock()
	change()
	m.mu.Unlock()
	m.moved.Broadcast()
}

func (m *memory) release() { m.set(func() { m.released = true }) }

func (m *memory) Close() error {
	m.set(func() {
		if !m.closed {
			close(m.done)
		}
		m.closed = true
	})
	return nil
}

func (m *memory) SetReadDeadline(t time.Time) error {
	m.set(func() { m.expired = !t.IsZero() && t.Before(time.Now()) })
	return nil
}

func (m *memory) SetDeadline(t time.Time) error    { return m.SetReadDeadline(t) }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }
func (m *memory) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (m *memory) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// listener hands out connections in memory.
type listener chan *memory

func (l listener) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, io.EOF
	}
	return c, nil
}
func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

type memoryKey struct{}

func withMemory(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, memoryKey{}, c)
}

func memoryOf(r *http.Request) *memory { return r.Context().Value(memoryKey{}).(*memory) }
