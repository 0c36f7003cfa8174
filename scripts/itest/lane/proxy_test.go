package lane_test

import (
	"net"
	"sync"
	"testing"
)

// stall is a TCP proxy that can stop forwarding without losing a byte, as the kernel
// does for a process that is stopped.
type stall struct {
	to string
	l  net.Listener

	mu     sync.Mutex
	go_    *sync.Cond
	frozen bool
	ended  bool
	conns  []net.Conn
}

func newStall(t *testing.T, to string) *stall {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &stall{to: to, l: l}
	p.go_ = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.ended = true
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.go_.Broadcast()
		wg.Wait()
	})
	wg.Go(func() { p.accept(&wg) })
	return p
}

func (p *stall) url() string { return "nats://" + p.l.Addr().String() }

func (p *stall) accept(wg *sync.WaitGroup) {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		wg.Go(func() { p.pipe(in, out) })
		wg.Go(func() { p.pipe(out, in) })
	}
}

func (p *stall) pipe(from, to net.Conn) {
	defer func() { _ = from.Close() }()
	defer func() { _ = to.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.frozen && !p.ended {
			p.go_.Wait()
		}
		p.mu.Unlock()
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (p *stall) freeze(on bool) {
	p.mu.Lock()
	p.frozen = on
	p.mu.Unlock()
	p.go_.Broadcast()
}
