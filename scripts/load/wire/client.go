package wire

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is what a Client calls, always on its goroutine; no method may block. Nop has
// all of them.
type Handler interface {
	// Header appends lines of c's handshake request, each ended by \r\n, to b:
	// "Authorization: Bearer …\r\n".
	Header(c *Conn, b []byte) []byte
	// Opened is called when the server has accepted the handshake.
	Opened(c *Conn)
	// Message is called for each whole message. b is valid until the call returns.
	Message(c *Conn, text bool, b []byte)
	// Closed is called once for each dialled connection that ends, also for one that
	// could not be opened, but not after Abort. c names nothing after the call.
	Closed(c *Conn, e End)
	// Timer is called once when the time given to Conn.Arm has passed.
	Timer(c *Conn)
	// Woken is called once when the time given to Client.WakeAt has come.
	Woken()
}

// Nop is a Handler that does nothing, to be embedded.
type Nop struct{}

func (Nop) Header(_ *Conn, b []byte) []byte { return b }
func (Nop) Opened(*Conn)                    {}
func (Nop) Message(*Conn, bool, []byte)     {}
func (Nop) Closed(*Conn, End)               {}
func (Nop) Timer(*Conn)                     {}
func (Nop) Woken()                          {}

// End is how a connection ended.
type End struct {
	// Code is the server's close code, 1005 for a close frame without one, 1006 when
	// the connection ended without a close frame.
	Code int
	// Reason is the text of the close frame.
	Reason string
	// Local says that this side began the close, by Close or because the server broke
	// the protocol; then Err says how.
	Local bool
	// Opened says that the handshake had succeeded before.
	Opened bool
	// Status is that of an HTTP response which refused the handshake, else 0.
	Status int
	// RetryAfter is what that response asked for.
	RetryAfter time.Duration
	// Err is of the socket, the handshake or the protocol; nil for a proper close.
	Err error
}

// Options are what a Client is made of. Targets and Conns must be set.
type Options struct {
	Targets []Target
	// Conns is the most connections at once, those that are being opened included.
	// More that are dialled wait.
	Conns int
	// Rate is how many connections are begun in a second; 0: as fast as InFlight allows.
	Rate float64
	// InFlight is how many connections may be between connect and the end of the
	// handshake; 0: 256.
	InFlight int
	// OpenTimeout is for a connection from connect to the end of the handshake; 0: 30 s.
	OpenTimeout time.Duration
	// MaxMessage is the largest message, in bytes, all fragments together; 0: 1 MiB.
	MaxMessage int
}

const (
	closeTimeout = 3 * time.Second // for the server's part of a close
	dialBatch    = 32              // connections begun in one turn, so that those already here get theirs
	readBuffer   = 64 << 10
	noSlot       = int32(-1)
)

// ErrStopped is returned by Run when the Client was stopped before.
var ErrStopped = errors.New("client is stopped")

// Client is one loop with all of its connections. Post and Stop may be called from
// anywhere, everything else on its goroutine or before Run.
type Client struct {
	handler Handler
	opt     Options
	dials   dialer
	conns   []Conn // made once: a *Conn stays what it is
	free    int32  // first free slot, noSlot if none
	counts  Counts
	wheel   wheel
	clock   clock
	poller  poller
	buf     []byte // of reads
	frame   []byte // scratch of writes
	posted  posted
}

// clock is the time of a Client, since it was made.
type clock struct {
	start time.Time
	now   time.Duration // of this turn
	wake  time.Duration // when Woken is due; 0: never
	armed time.Duration // what the timerfd is set to; 0: nothing
}

// posted is the only part that others touch.
type posted struct {
	wakefd int
	stop   atomic.Bool

	mu     sync.Mutex
	queue  []func() // guarded by mu
	closed bool     // guarded by mu: wakefd is gone
}

// Counts are how many connections there are now.
type Counts struct {
	Queued  int // dialled, and waiting for their turn
	Opening int // between connect and the end of the handshake
	Open    int // those that are being closed included
}

// New opens the descriptors of a Client. Run closes them at its end.
func New(h Handler, o Options) (*Client, error) {
	if len(o.Targets) == 0 || o.Conns <= 0 {
		return nil, errors.New("a client needs a target and a number of connections")
	}
	if o.InFlight <= 0 {
		o.InFlight = 256
	}
	if o.OpenTimeout <= 0 {
		o.OpenTimeout = 30 * time.Second
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 1 << 20
	}
	c := &Client{handler: h, opt: o, conns: make([]Conn, o.Conns), buf: make([]byte, readBuffer)}
	c.clock.start = time.Now()
	c.dials.init(o.Rate, rand.Uint32())
	c.wheel.init(c)
	for i := range c.conns {
		c.conns[i] = Conn{client: c, fd: -1, slot: int32(i), link: link{next: int32(i) + 1, prev: noSlot}}
	}
	c.conns[o.Conns-1].next = noSlot
	if err := c.open(); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// Post runs f soon on the Client's goroutine. It never blocks; after the Client's end f
// is dropped.
func (c *Client) Post(f func()) {
	c.posted.mu.Lock()
	defer c.posted.mu.Unlock()
	if !c.posted.closed {
		c.posted.queue = append(c.posted.queue, f)
		c.posted.wake()
	}
}

// Stop makes Run return soon; what is open then is closed without a word.
func (c *Client) Stop() {
	c.posted.stop.Store(true)
	c.posted.mu.Lock()
	defer c.posted.mu.Unlock()
	if !c.posted.closed {
		c.posted.wake()
	}
}

// wake is called with mu held, so that wakefd is open.
func (p *posted) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wakefd, one[:]) // EAGAIN: it is awake already
}

// Counts returns how many connections there are.
func (c *Client) Counts() Counts {
	n := c.counts
	n.Queued = c.dials.len()
	return n
}

// Now returns the time since the Client was made, read anew.
func (c *Client) Now() time.Duration { return time.Since(c.clock.start) }

// WakeAt makes Handler.Woken be called at a time of Now, or at once when that is past.
// An earlier setting is forgotten. The kernel's timer adds some 50 µs.
func (c *Client) WakeAt(at time.Duration) { c.clock.wake = max(at, 1) }
