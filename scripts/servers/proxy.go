package servers

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP to one address until it is cut.
type Proxy struct {
	l     net.Listener
	known chan struct{} // closed when to is set
	end   chan struct{} // closed when the test ends

	to string

	mu    sync.Mutex
	cut   bool
	delay time.Duration
	conns map[net.Conn]bool
}

// NewProxy listens on 127.0.0.1 and forwards to the address to; "" is told later, by
// To, and connections wait for it. It ends with the test.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, known: make(chan struct{}), end: make(chan struct{}), conns: map[net.Conn]bool{}}
	if to != "" {
		p.To(to)
	}
	t.Cleanup(func() {
		close(p.end)
		_ = l.Close()
		p.Restore()
	})
	go p.accept()
	return p
}

// To sets the address, once.
func (p *Proxy) To(addr string) {
	p.to = addr
	close(p.known)
}

// Addr is what to dial.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Cut swallows what is sent in either direction, and new connections, without telling
// either side.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
}

// Delay makes whatever is read at once go on after a random time up to most: connections
// through the proxy overtake each other, the bytes of one do not.
func (p *Proxy) Delay(most time.Duration) {
	p.mu.Lock()
	p.delay = most
	p.mu.Unlock()
}

// Restore ends a cut: every connection is closed, new ones are forwarded.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		if p.keep(in) {
			go p.connect(in)
		}
	}
}

func (p *Proxy) connect(in net.Conn) {
	select {
	case <-p.known:
	case <-p.end:
		return
	}
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = in.Close()
		return
	}
	if p.keep(out) {
		go p.pipe(in, out)
		p.pipe(out, in)
	}
}

// keep registers a connection; during a cut it is kept open and not served.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.cut
}

// chunk is what was read at once, and when it goes on.
type chunk struct {
	b   []byte
	due time.Time
}

func (p *Proxy) pipe(from, to net.Conn) {
	chunks := make(chan chunk, 4096)
	defer close(chunks)
	defer from.Close()
	go p.write(to, chunks)
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		cut, delay := p.cut, p.delay
		p.mu.Unlock()
		c := chunk{b: b[:n]}
		if cut {
			continue
		}
		if delay > 0 {
			c.due = time.Now().Add(rand.N(delay))
		}
		chunks <- c
	}
}

// write forwards chunks in their order, each not before it is due.
func (p *Proxy) write(to net.Conn, chunks <-chan chunk) {
	defer to.Close()
	for c := range chunks {
		if d := time.Until(c.due); !c.due.IsZero() && d > 0 {
			time.Sleep(d) // the wait is what is asked for
		}
		if _, err := to.Write(c.b); err != nil {
			for range chunks { // until the reading side ends
			}
			return
		}
	}
}
