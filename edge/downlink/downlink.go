package downlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// Constants until an operator asks.
const (
	// Patience is how long a receiver waits for its first position.
	Patience = 15 * time.Second
	// MaxReplay and MaxReplayBytes bound what a receiver gets by resuming, or a user by a
	// repair; who missed more is told so and syncs by conversation. It comes in one burst:
	// MaxReplayBytes is at most half of the socket's Limits.Pending (1 MiB), or a network
	// that is slower than the edge would end every try to resume in a close. What was held
	// meanwhile (holdBytes) and the resume tokens are in the other half.
	MaxReplay      = 1000
	MaxReplayBytes = 512 << 10

	defaultSweep  = time.Minute
	defaultResync = 1000 // per second and hub
)

var (
	// ErrTooManyConnections is returned when the user has users.MaxReceivers receivers.
	ErrTooManyConnections = errors.New("too many connections of this user")
	// ErrNotReady is returned when no marker of the user's shard was answered within
	// Patience: NATS is away, or the shard's stream does not exist, or begins anew again
	// and again.
	ErrNotReady = errors.New("downlink is not ready")
)

// Receiver gets the frames of one user on one connection. Its methods are called on a
// goroutine of the downlink and must not block; Receivers are compared by ==.
type Receiver interface {
	// Attached is called exactly once after Attach, unless AttachFailed is. resumed says
	// that everything after the client's token follows, by Deliver, before any live frame.
	Attached(resumed bool, at Token)
	// AttachFailed is called with ErrTooManyConnections or ErrNotReady; the receiver is
	// not attached then and needs no Detach.
	AttachFailed(err error)
	// Deliver hands over one frame.
	Deliver(f Frame)
	// Moved says that everything up to at was handed over, without a frame.
	Moved(at Token)
	// Resync says that frames before at were lost, or may have been; the downlink was set
	// up anew, and the connection should be announced again.
	Resync(at Token)
}

// Frame is a JSON text frame for a client.
type Frame struct {
	Data []byte // shared by all receivers: read-only. Its first member is the resume token of At
	At   Token  // zero when the frame moves no position
	// Echoes is when this edge received what the frame is the echo of, in Unix milliseconds;
	// 0: it is none, another edge did, or the frame does not come live.
	Echoes int64
}

// Config is what a Downlink needs. Edge, Shards, Dial and Log are required.
type Config struct {
	Edge   string // a plain token [A-Za-z0-9_-]{1,64}
	Shards int    // ≥ 1; must be the workers' number
	// Dial connects to NATS for this room alone: it reconnects for ever, does not buffer
	// publishes while disconnected (nats.ReconnectBufSize(-1)), and puts wrap, if it is not
	// nil, around each connection to a server (natsconn.Options.Wrap). It may wait for the
	// first connection until ctx ends. It is called for each hub, twice where DialReads is
	// nil.
	Dial func(ctx context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error)
	// DialReads is the same for the connections that make direct gets and nothing else,
	// which may be another user's. nil: Dial, with no wrap.
	DialReads func(ctx context.Context, name string) (*nats.Conn, error)
	Log       *slog.Logger
	Registry  prometheus.Registerer // nil: metrics are kept and shown nowhere

	// Hubs is the number of goroutines that deliver, at most one for each shard;
	// 0: as many as there are processors.
	Hubs int
	// SweepEvery is how often the positions of all users are proven; 0: a minute. It must
	// be well below the age at which frames are evicted, or quiet users cannot resume:
	// where the stream turns out to keep frames for less than three times this, sweeps
	// come more often by themselves, up to once a second. A sweep costs the server some
	// 7 µs a user.
	SweepEvery time.Duration
	// ResyncPerSecond bounds how many users a hub tells of a new incarnation; 0: 1,000.
	ResyncPerSecond int
}

// Downlink delivers frames. Its methods may be called from any goroutine and never block
// (but New and Close).
type Downlink struct {
	cfg  Config
	m    *metrics
	hubs []*hub
	stop context.CancelFunc
	done sync.WaitGroup
}

// New connects and starts the room; it does not wait for the streams. Close ends it.
func New(ctx context.Context, cfg Config) (*Downlink, error) {
	if cfg.Hubs == 0 {
		cfg.Hubs = runtime.GOMAXPROCS(0)
	}
	cfg.Hubs = min(cfg.Hubs, cfg.Shards)
	if cfg.DialReads == nil {
		cfg.DialReads = func(ctx context.Context, name string) (*nats.Conn, error) { return cfg.Dial(ctx, name, nil) }
	}
	if cfg.SweepEvery == 0 {
		cfg.SweepEvery = defaultSweep
	}
	if cfg.ResyncPerSecond == 0 {
		cfg.ResyncPerSecond = defaultResync
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &Downlink{cfg: cfg, m: newMetrics(cfg.Registry), stop: stop}
	for i := range cfg.Hubs {
		h, err := d.connect(ctx, i)
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("downlink: %w", err)
		}
		d.hubs = append(d.hubs, h)
		d.done.Go(func() { h.run(life) })
	}
	return d, nil
}

func (d *Downlink) connect(ctx context.Context, i int) (*hub, error) {
	h := newHub(d, i)
	err := h.feed.Connect(func(wrap func(net.Conn) net.Conn) (*nats.Conn, error) {
		return d.cfg.Dial(ctx, fmt.Sprintf("downlink-%d", i), wrap)
	})
	if err != nil {
		return nil, err
	}
	if h.reads, err = d.cfg.DialReads(ctx, fmt.Sprintf("replay-%d", i)); err != nil {
		h.feed.Close()
		return nil, err
	}
	return h, nil
}

// Attach makes r a receiver of user's frames. connID names its connection; resume is the
// client's token, "" for none. Attached or AttachFailed follows. One receiver is attached
// to one user at a time.
func (d *Downlink) Attach(r Receiver, user userid.ID, connID, resume string) {
	d.hubOf(user).box.put(letter{kind: attach, receiver: r, user: user, conn: users.ConnHash(connID), resume: resume})
}

// Detach ends it. Calls that are under way may still reach r afterwards.
func (d *Downlink) Detach(r Receiver, user userid.ID) {
	d.hubOf(user).box.put(letter{kind: detach, receiver: r, user: user})
}

// Ready reports whether markers of all shards are answered.
func (d *Downlink) Ready() bool {
	for _, h := range d.hubs {
		for _, sh := range h.shards {
			if sh != nil && !sh.health.good() {
				return false
			}
		}
	}
	return true
}

// Late reports that at every shard receivers wait for their first position for more than
// two seconds and are not even asked for: whoever attaches now waits longer still. In a
// storm of logins that is beyond what NATS or the machine can do, taking more of them lets
// all wait until they give up, come again, and nobody gets in. One shard that is not served,
// such as while its stream has no leader, is no reason to turn the users of others away.
func (d *Downlink) Late() bool {
	for _, h := range d.hubs {
		if !h.late.Load() {
			return false
		}
	}
	return true
}

// Close stops delivering and closes the connections. Nothing is called afterwards. It is
// called once.
func (d *Downlink) Close() {
	d.stop()
	d.done.Wait()
	for _, h := range d.hubs {
		h.feed.Close()
		h.reads.Close()
	}
}

// hubOf: a shard has one hub, so that all logins of a shard share markers.
func (d *Downlink) hubOf(user userid.ID) *hub {
	return d.hubs[subject.Shard(user, d.cfg.Shards)%len(d.hubs)]
}
