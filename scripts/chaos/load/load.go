package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// Options says who talks, and how much. URLs, Token and History are needed.
type Options struct {
	URLs    []string                            // of the edges; each device begins at a random one
	Place   func(i int, urls []string) []string // the edges that user i may connect to; nil: all
	Token   func(user string) (string, error)   // a token for a user
	History *history.Writer
	Seed    uint64

	Prefix string  // of the users' names
	Users  int     // at least 2
	Second int     // of them have a second device
	Late   int     // of them have a third that has no state: it begins with what comes next
	Slow   int     // of them have a fourth that Flood can tell not to read
	Rate   float64 // sends a second, over all; 0: only what is directed
	Again  float64 // part of the sends that is repeated after the ack, and half as many with another body; 0: a hundredth

	Disturb time.Duration // the mean time between two disturbances of one device (a cut, a restart, a crash); 0: none
}

// Load is the clients of one run.
type Load struct {
	o       Options
	devices []*device
	users   []string

	acks atomic.Int64
	sent atomic.Int64

	ctx     context.Context // ends when nothing new is to be sent or disturbed
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	failed []error
}

// New returns the clients; Start lets them begin.
func New(o Options) *Load {
	if o.Again == 0 {
		o.Again = partAgain
	}
	l := &Load{o: o}
	l.ctx, l.stop = context.WithCancel(context.Background())
	for i := range o.Users {
		l.users = append(l.users, o.Prefix+userName(i))
	}
	for i := range l.users {
		l.devices = append(l.devices, l.newDevice(i, "phone"))
		if i < o.Second {
			l.devices = append(l.devices, l.newDevice(i, "laptop"))
		}
		if i < o.Late {
			d := l.newDevice(i, "late")
			d.opts.FromStart = false
			l.devices = append(l.devices, d)
		}
		if i < o.Slow {
			d := l.newDevice(i, "slow")
			d.slow, d.opts.EventBuffer = true, 16
			l.devices = append(l.devices, d)
		}
	}
	return l
}

// userName: every fourth is as hostile as an id may be.
func userName(i int) string {
	switch i % 4 {
	case 3:
		return fmt.Sprintf("u%d .*/>=%%𝄞", i)
	default:
		return fmt.Sprintf("u%d", i)
	}
}

// Users are the names of the users.
func (l *Load) Users() []string { return l.users }

// Start begins all lives and returns when every device is logged in and knows what it
// begins with. Nothing is sent yet.
func (l *Load) Start(ctx context.Context) error {
	for _, d := range l.devices {
		if err := d.begin(); err != nil {
			return err
		}
	}
	for _, d := range l.devices {
		if err := d.await(ctx, func() bool { return d.synced }); err != nil {
			return fmt.Errorf("a first login: %w", err)
		}
	}
	return nil
}

// Run begins to send and to disturb, until Stop.
func (l *Load) Run() {
	rate := l.o.Rate / float64(l.senders())
	for i, d := range l.devices {
		if !d.slow && rate > 0 {
			l.running.Go(func() { l.keepSending(d, rate) })
		}
		if l.o.Disturb > 0 && !d.slow {
			rng := rand.New(rand.NewPCG(l.o.Seed, uint64(i)+1<<32))
			l.running.Go(func() { l.keepDisturbing(d, rng) })
		}
	}
}

func (l *Load) senders() (n int) {
	for _, d := range l.devices {
		if !d.slow {
			n++
		}
	}
	return n
}

// Stop ends sending and disturbing and returns when nobody does any more. It may be
// called twice.
func (l *Load) Stop() {
	l.stop()
	l.running.Wait()
}

// AwaitOlder waits until every send is resolved that was made before at.
func (l *Load) AwaitOlder(ctx context.Context, at time.Time) error {
	for _, d := range l.devices {
		err := d.await(ctx, func() bool {
			for _, in := range d.open {
				if in.since.Before(at) {
					return false
				}
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Acks is how many sends were acknowledged so far.
func (l *Load) Acks() int64 { return l.acks.Load() }

// Sent is how many sends there were so far.
func (l *Load) Sent() int64 { return l.sent.Load() }

// Unresolved is how many sends wait now, over all devices.
func (l *Load) Unresolved() (n int) {
	for _, d := range l.devices {
		n += d.unresolved()
	}
	return n
}

func (l *Load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, err)
}

// Failures are what went wrong with the clients themselves: one that gave up, a send that
// its client did not take.
func (l *Load) Failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append([]error(nil), l.failed...)
	for _, d := range l.devices {
		d.mu.Lock()
		if d.gaveUp != nil {
			all = append(all, fmt.Errorf("%s: the client gave up: %w", d.id, d.gaveUp))
		}
		d.mu.Unlock()
	}
	return all
}
