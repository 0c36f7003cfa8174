package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
)

// Constants until an operator asks.
const (
	// Patience is how long an event is tried before its sender hears ErrStalled: longer
	// than a leader election of JetStream (4 to 9 s), shorter than promise P5 (20 s).
	Patience = 15 * time.Second

	ackTimeout  = 2 * time.Second       // of one attempt, while its lane answers nothing or has passed it over
	firstWait   = 20 * time.Millisecond // before the second attempt; doubles from there
	longestWait = time.Second
	tick        = 10 * time.Millisecond // resolution of waits and timeouts, only while something is in flight
	window      = 4096                  // publishes that wait for an ack at once, in equal parts for the lanes; nats-server takes 10,000 a stream
	look        = 4 * window            // slots that a tick looks at; more are given back when nothing is in flight
	maxEvents   = 1 << 18               // events held, and
	maxBytes    = 256 << 20             // their payload bytes, at which Publish refuses
)

// ErrStalled is returned when JetStream did not store an event within Patience, or when
// the room holds as much as it may. The event may have been stored all the same.
var ErrStalled = errors.New("uplink stalled")

// ErrTooLarge is returned when an event is larger than the NATS server takes.
var ErrTooLarge = errors.New("event exceeds the payload limit of nats")

// ErrClosed is returned when the room was closed before the event was stored.
var ErrClosed = errors.New("uplink closed")

// Sender hears what became of its event.
type Sender interface {
	// PublishDone is called exactly once per Publish, on the uplink's goroutine: it must
	// not block. With a nil error JetStream stored the event, in that incarnation of its
	// lane (stream.Incarnation); with an error incarnation is 0.
	PublishDone(incarnation uint32, err error)
}

// Config is what an Uplink needs. All fields but Registry are required.
type Config struct {
	Lanes int // ≥ 1; must be the workers' number
	// Dial connects to NATS for this room alone: it reconnects for ever, does not buffer
	// publishes while disconnected (nats.ReconnectBufSize(-1)), and calls onReconnect
	// each time it is back. It may wait for the first connection until ctx ends.
	Dial     func(ctx context.Context, name string, onReconnect func()) (*nats.Conn, error)
	Log      *slog.Logger
	Registry prometheus.Registerer // nil: metrics are kept and shown nowhere
	Patience time.Duration         // how long an event is tried; 0: Patience
}

// Uplink publishes events. Its methods may be called from any goroutine.
type Uplink struct {
	names    []string // of the lanes' streams
	patience time.Duration
	log      *slog.Logger
	m        *metrics
	nc       *nats.Conn
	send     func(*nats.Msg) error // nc's, but in tests
	sub      *nats.Subscription
	acks     chan *nats.Msg // written by nats.go, read by run; never closed
	wake     chan struct{}  // capacity 1: there is something in the queue, or back is set
	stop     chan struct{}  // closed by Close
	stopped  chan struct{}  // closed by run

	in      intake
	flights flights // owned by run
}

// intake is what callers and run share.
type intake struct {
	mu     sync.Mutex
	queue  []event       // what Publish added and run has not taken
	held   int           // events that are queued or in flight
	bytes  int           // their payload
	back   bool          // the connection was away
	closed bool          // Publish refuses
	idle   chan struct{} // closed when held falls to 0; nil when nobody waits
}

type event struct {
	sender Sender
	ev     envelope.Event
	since  time.Time
}

// New connects and starts the room. Close ends it.
func New(ctx context.Context, cfg Config) (*Uplink, error) {
	u := &Uplink{
		patience: cfg.Patience, log: cfg.Log, m: newMetrics(cfg.Registry),
		acks: make(chan *nats.Msg, 2*window),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	for lane := range cfg.Lanes {
		u.names = append(u.names, stream.Up(lane))
	}
	if u.patience == 0 {
		u.patience = Patience
	}
	nc, err := cfg.Dial(ctx, "uplink", u.reconnected)
	if err != nil {
		return nil, fmt.Errorf("uplink: %w", err)
	}
	u.nc, u.send = nc, nc.PublishMsg
	inbox := nc.NewInbox()
	u.flights.reply, u.flights.lanes = inbox+".", make([]lane, cfg.Lanes)
	if u.sub, err = nc.ChanSubscribe(inbox+".*", u.acks); err != nil {
		nc.Close()
		return nil, fmt.Errorf("subscribe to acks: %w", err)
	}
	go u.run()
	return u, nil
}

// Publish sends ev and never blocks. s hears the outcome; it must not publish again
// before it has. ev.Data belongs to the room until PublishDone. A full room answers
// ErrStalled; a closed one answers ErrClosed, on the caller's goroutine.
func (u *Uplink) Publish(s Sender, ev envelope.Event) {
	u.in.mu.Lock()
	u.in.queue = append(u.in.queue, event{sender: s, ev: ev, since: time.Now()})
	u.in.held++
	u.in.bytes += len(ev.Data)
	dead := u.in.closed
	u.in.mu.Unlock()
	if dead {
		u.refuseQueue()
		return
	}
	u.poke()
}

// Held is the number of events that are queued or in flight.
func (u *Uplink) Held() int {
	u.in.mu.Lock()
	defer u.in.mu.Unlock()
	return u.in.held
}

// Connected reports whether the room's connection is up.
func (u *Uplink) Connected() bool { return u.nc.IsConnected() }

// Drain waits until nothing is in flight or ctx ends. It does not refuse new events.
func (u *Uplink) Drain(ctx context.Context) error {
	for {
		u.in.mu.Lock()
		if u.in.held == 0 {
			u.in.mu.Unlock()
			return nil
		}
		if u.in.idle == nil {
			u.in.idle = make(chan struct{})
		}
		idle := u.in.idle
		u.in.mu.Unlock()
		select {
		case <-idle:
		case <-u.stopped:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("drain uplink: %w", ctx.Err())
		}
	}
}

// Close ends the room; events that are not stored fail with ErrClosed. It is called once.
func (u *Uplink) Close() {
	u.in.mu.Lock()
	u.in.closed = true
	u.in.mu.Unlock()
	close(u.stop)
	<-u.stopped
	_ = u.sub.Unsubscribe()
	u.nc.Close()
}

func (u *Uplink) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *Uplink) reconnected() {
	u.in.mu.Lock()
	u.in.back = true
	u.in.mu.Unlock()
	u.poke()
}
