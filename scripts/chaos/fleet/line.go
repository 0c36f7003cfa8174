package fleet

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// lineType is the name of our toxic at toxiproxy.
const lineType = "line"

func init() { toxics.Register(lineType, new(line)) }

// line is one direction of a proxy, as a toxic that is there from the start and told
// what to do. toxiproxy's own toxics are added to and taken from living connections,
// which does not serve here: that waits for ever when the receiver is paused and its
// buffers are full, "timeout" lets the end of a connection through a partition, and its
// removal leaves goroutines behind.
//
// The zero value lets everything through.
type line struct {
	mu   sync.Mutex // one change at a time
	now  atomic.Pointer[condition]
	rate pacer
}

// condition is how a line is. It is never changed, only replaced.
type condition struct {
	cut             bool
	latency, jitter time.Duration
	rate            int           // bytes a second; 0: no limit
	age             int           // connections of an earlier age are closed
	over            chan struct{} // closed when another condition holds
}

// get is the present condition.
func (l *line) get() *condition {
	for {
		if c := l.now.Load(); c != nil {
			return c
		}
		l.now.CompareAndSwap(nil, &condition{over: make(chan struct{})})
	}
}

// set changes the condition. Bytes that are in the kernel's hands already go on.
func (l *line) set(change func(*condition)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.get()
	next := *old
	change(&next)
	next.over = make(chan struct{})
	l.now.Store(&next)
	close(old.over)
}

// GetBufferSize is how many chunks, of 32 KiB at most, may be late at the same time.
func (l *line) GetBufferSize() int { return 64 }

// Pipe carries the bytes of one connection in one direction until its end.
func (l *line) Pipe(stub *toxics.ToxicStub) {
	age := l.get().age
	for {
		c := l.get()
		if c.age != age {
			hangUp(stub)
			return
		}
		select {
		case <-c.over:
		case <-stub.Interrupt: // toxiproxy changes the chain, which nobody asks it for
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				l.end(stub, age)
				return
			}
			if !l.carry(stub, chunk, age) {
				hangUp(stub)
				return
			}
		}
	}
}

// carry hands a chunk on when it is due, or drops it. It reports false when the
// connection must be closed.
func (l *line) carry(stub *toxics.ToxicStub, chunk *stream.StreamChunk, age int) bool {
	paced := false
	for {
		c := l.get()
		switch {
		case c.age != age:
			return false
		case c.cut:
			return true
		}
		if !paced && c.rate > 0 {
			paced = true
			if !c.wait(l.rate.next(len(chunk.Data), c.rate)) {
				continue
			}
		}
		if c.latency > 0 && !c.wait(chunk.Timestamp.Add(c.delay())) {
			continue
		}
		select {
		case <-c.over: // the receiver does not read, and things have changed
		case stub.Output <- chunk:
			return true
		}
	}
}

// wait waits until t. It reports false when the condition is over before.
func (c *condition) wait(t time.Time) bool {
	late := time.Until(t)
	if late <= 0 {
		return true
	}
	timer := time.NewTimer(late)
	defer timer.Stop()
	select {
	case <-c.over:
		return false
	case <-timer.C:
		return true
	}
}

// pacer spreads the bytes of one direction over time, whatever connection they are of.
type pacer struct {
	mu   sync.Mutex
	free time.Time // when all bytes before are through
}

// next returns when n bytes more are through, at so many a second.
func (p *pacer) next(n, rate int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return p.free
}

// end tells the receiver that the sender has closed, but not during a cut: who is cut
// off does not learn that the other one died.
func (l *line) end(stub *toxics.ToxicStub, age int) {
	for c := l.get(); c.cut && c.age == age; c = l.get() {
		<-c.over
	}
	stub.Close()
}

// hangUp closes the connection to the receiver and swallows what still comes: whoever
// writes into a line must never be left waiting.
func hangUp(stub *toxics.ToxicStub) {
	stub.Close()
	for chunk := range stub.Input {
		_ = chunk
	}
}

// delay is another one for each chunk; a line keeps their order.
func (c *condition) delay() time.Duration {
	if c.jitter <= 0 {
		return c.latency
	}
	return max(0, c.latency-c.jitter+rand.N(2*c.jitter))
}
