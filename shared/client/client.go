package client

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrClosed is returned when Run has ended before the call was resolved.
	ErrClosed = errors.New("client is closed")
	// ErrTooLarge is returned when a send is larger than the gateway's maxFrame.
	ErrTooLarge = errors.New("message is larger than the gateway takes")
	// ErrRunning is returned by the second call of Run.
	ErrRunning = errors.New("client was run before")
)

// Client is one device of one user. Run must be at work for anything else to go on; all
// methods may be called from any goroutine.
type Client struct {
	opts    Options
	cmds    chan func()   // from any goroutine to Run, which calls them; never closed
	events  chan Event    // from Run to the user; closed by Run at its end
	room    chan struct{} // one token per send in the outbox
	done    chan struct{} // closed at the end of Run
	started atomic.Bool
	idle    atomic.Pointer[State] // the state before and after Run
	work    sync.WaitGroup        // dials, readers, writers

	// Owned by Run.

	ctx   context.Context // ends with Run
	link  link
	out   outbox
	in    inbox
	asks  requests
	queue queue
	stop  error // why Run ends, once it does
}

// New returns a client that does nothing until Run.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, cmds: make(chan func()), events: make(chan Event),
		room: make(chan struct{}, o.OutboxLimit), done: make(chan struct{})}
	c.link = newLink(o)
	c.asks = newRequests()
	c.in = newInbox()
	c.out = newOutbox()
	c.restore()
	st := c.snapshot()
	c.idle.Store(&st)
	return c, nil
}

// restore takes up Options.State.
func (c *Client) restore() {
	c.in.fresh = true
	if st := c.opts.State; st != nil {
		for _, o := range st.Outbox {
			if c.out.byID[o.ClientMsgID] != nil {
				continue
			}
			c.out.add(&entry{id: o.ClientMsgID, frame: o.Frame, pending: newPending(o.ClientMsgID)})
		}
		if st.Cursors != nil {
			c.in.fresh = false
			c.in.safe = st.Resume
			c.queue.cursors, c.queue.resume = maps.Clone(st.Cursors), st.Resume
			for id, seq := range st.Cursors {
				c.in.conversation(id).next = seq + 1
			}
		}
	}
	if c.in.fresh && c.opts.FromStart {
		c.in.fresh = false
		c.queue.cursors = map[string]int64{}
	}
}

// Events is the one channel on which everything arrives, in order. It is closed when
// Run ends; events that were not read by then are not part of State.
func (c *Client) Events() <-chan Event { return c.events }

// State returns a snapshot that holds everything that was read from Events. Called
// from the goroutine that reads Events, after an event was dealt with, it never claims
// more than that. It may be called before and after Run too.
func (c *Client) State() State {
	var st State
	if !c.started.Load() || c.do(func() { st = c.snapshot() }) != nil {
		st = *c.idle.Load()
		st.Cursors = maps.Clone(st.Cursors)
	}
	return st
}

func (c *Client) snapshot() State {
	st := State{Cursors: maps.Clone(c.queue.cursors), Resume: c.queue.resume}
	for _, q := range c.queue.waiting[c.queue.head:] {
		if q.send != nil {
			st.Outbox = append(st.Outbox, *q.send)
		}
	}
	for _, e := range c.out.entries {
		st.Outbox = append(st.Outbox, Outgoing{ClientMsgID: e.id, Frame: e.frame})
	}
	return st
}

// Run connects and keeps the client connected until ctx ends (it then closes the
// connection and returns nil) or the gateway says that reconnecting is useless (it
// returns what was said, once the events that wait are read). What is unresolved then
// fails with ErrClosed, and stays in the final State. Run may be called once.
func (c *Client) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return ErrRunning
	}
	ctx, cancel := context.WithCancel(ctx)
	c.ctx = ctx
	c.connect()
	for ctx.Err() == nil && (c.stop == nil || c.queue.len() > 0) {
		c.turn()
	}
	cancel()
	c.finish()
	return c.stop
}

// turn waits for one thing to happen and deals with it.
func (c *Client) turn() {
	var out chan<- Event
	var first Event
	if c.queue.len() > 0 {
		out, first = c.events, c.queue.first()
	}
	var frames <-chan inFrame
	var writes chan<- []byte
	var frame []byte
	if l := c.link.conn; l != nil {
		if !c.paused() {
			frames = l.frames
		}
		if len(l.unwritten) > 0 {
			writes, frame = l.writes, l.unwritten[0]
		}
	}
	select {
	case fn := <-c.cmds:
		fn()
	case f := <-frames:
		c.received(f)
	case writes <- frame:
		c.link.conn.written()
	case out <- first:
		c.queue.handed()
		c.resumeReading()
	case <-c.ctx.Done():
	}
}

// paused reports whether the socket is not read because events wait.
func (c *Client) paused() bool { return c.queue.len() >= c.opts.EventBuffer }

// halt makes Run end with err once the events that wait are read.
func (c *Client) halt(err error) {
	c.stop = err
	c.link.off()
	c.asks.failAll(ErrClosed)
	c.out.failAll(ErrClosed)
}

// finish ends what is under way.
func (c *Client) finish() {
	st := c.snapshot()
	c.idle.Store(&st)
	if c.link.conn != nil {
		c.link.conn.close(closeNormal)
	}
	c.link.off()
	close(c.done)
	c.work.Wait()
	c.asks.failAll(ErrClosed)
	c.out.failAll(ErrClosed)
	close(c.events)
}

// do has fn called by Run and returns when it was; ErrClosed when Run has ended.
func (c *Client) do(fn func()) error {
	ran := make(chan struct{})
	if !c.post(func() { fn(); close(ran) }) {
		return ErrClosed
	}
	<-ran // Run calls what it has taken
	return nil
}

// post has fn called by Run, and reports whether it will be.
func (c *Client) post(fn func()) bool {
	select {
	case c.cmds <- fn:
		return true
	case <-c.done:
		return false
	}
}

// alarm is a timer whose function runs on Run's goroutine, never after off.
type alarm struct {
	t    *time.Timer
	dead bool // owned by Run
}

func (c *Client) after(d time.Duration, fn func()) *alarm {
	a := &alarm{}
	a.t = time.AfterFunc(d, func() {
		c.post(func() {
			if !a.dead {
				a.dead = true
				fn()
			}
		})
	})
	return a
}

// off stops the alarm; a nil alarm is off.
func (a *alarm) off() {
	if a != nil {
		a.dead = true
		a.t.Stop()
	}
}

// on reports whether the alarm will still go off.
func (a *alarm) on() bool { return a != nil && !a.dead }
