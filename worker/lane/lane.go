package lane

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/worker/messaging"
)

// Business is what is done with the messages of a lane. Work is called by one goroutine
// at a time for each lane, and by several for several lanes.
type Business interface {
	// Work commits the events, in their order, or returns an error when it may succeed
	// later; then the same batch is worked again. The events in dead (ascending indexes)
	// can never succeed; the others are committed. Working the same events again, also
	// on another worker at the same time, must have no further effect. Work must not
	// change the batch; it may keep it.
	Work(ctx context.Context, batch []envelope.Event) (dead []messaging.Dead, err error)
}

// Config says how a worker takes part. Zero fields take the defaults named here.
type Config struct {
	// Worker is unique among the workers, a plain token [A-Za-z0-9_-]{1,64}. A worker that
	// died and comes back under its name need not wait until its pins end.
	Worker string
	Lanes  int // of the system; 0: stream.DefaultLanes
	Batch  int // most messages in one call of Work; 0: 256

	// Missing is told when a stream or consumer is gone (streams.Keeper.Missing); it
	// must not block. nil: nobody is told.
	Missing func(what string)

	// StopGrace is how long a batch at work may take after the stop began; 0: 10 s.
	StopGrace time.Duration
	// PinnedTTL is that of the consumers; 0: stream.PinnedTTL.
	PinnedTTL time.Duration
	// LeaseTTL is after what silence a worker counts as gone; 0: 3 s.
	LeaseTTL time.Duration
	// AckWait is that of the consumers: messages are prolonged three times in it; 0: 10 s.
	AckWait time.Duration
}

var errConfig = errors.New("impossible lane configuration")

func (c Config) filled() (Config, error) {
	c.Lanes = cmp.Or(c.Lanes, stream.DefaultLanes)
	c.Batch = cmp.Or(c.Batch, 256)
	c.StopGrace = cmp.Or(c.StopGrace, 10*time.Second)
	c.PinnedTTL = cmp.Or(c.PinnedTTL, stream.PinnedTTL)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 3*time.Second)
	c.AckWait = cmp.Or(c.AckWait, 10*time.Second)
	if c.Missing == nil {
		c.Missing = func(string) {}
	}
	switch {
	case !subject.Plain(c.Worker, 64):
		return c, fmt.Errorf("%w: worker name %q is not 1 to 64 of [A-Za-z0-9_-]", errConfig, c.Worker)
	case c.Lanes < 1 || c.Batch < 1:
		return c, fmt.Errorf("%w: %d lanes, batches of %d", errConfig, c.Lanes, c.Batch)
	}
	return c, nil
}

// Group runs one worker's share of the lanes.
type Group struct {
	js       jetstream.JetStream
	cfg      Config
	business Business
	log      *slog.Logger
	m        *metrics
	nonce    string // of this process: a worker that comes back under its name is another one

	// alone is held for reading while a batch is worked, and for writing while a message
	// is worked that was the suspect of a death before.
	alone sync.RWMutex

	abort     context.Context // ends at Abort
	abortFunc context.CancelFunc
}

// New returns a Group; Run makes it work. The streams must exist, or cfg.Missing must
// lead to their creation.
func New(js jetstream.JetStream, cfg Config, business Business, log *slog.Logger, reg prometheus.Registerer) (*Group, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	g := &Group{js: js, cfg: cfg, business: business, log: log, m: newMetrics(reg, cfg.Lanes, silence(cfg.PinnedTTL)), nonce: rand.Text()}
	g.abort, g.abortFunc = context.WithCancel(context.Background())
	return g, nil
}

// Run takes part until ctx ends. Then it gives its lease back at once, lets the batches
// that are at work end (Config.StopGrace), acknowledges them and releases its lanes, so
// that the other workers go on without waiting. It returns when nothing of it runs any
// more, always nil after ctx ended; call it once.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.abort, cancel)()

	shares := make(chan assignment)
	var wg sync.WaitGroup
	wg.Go(func() { newMembers(g).run(ctx, shares) })
	defer wg.Wait()

	work, stopWork := context.WithCancel(g.abort)
	defer stopWork()
	f := floor{g: g, work: work, tenures: map[int]*tenure{}, ended: make(chan *tenure)}
	for {
		select {
		case a := <-shares:
			f.want(a)
		case t := <-f.ended:
			f.remove(t)
		case <-ctx.Done():
			grace := time.AfterFunc(g.cfg.StopGrace, stopWork)
			defer grace.Stop()
			f.want(assignment{})
			for len(f.tenures) > 0 {
				f.remove(<-f.ended)
			}
			return nil
		}
	}
}

// Abort cuts everything at once, as a kill would: nothing is acknowledged, released or
// given back. It is for crash tests. Run returns soon after.
func (g *Group) Abort() { g.abortFunc() }

// floor is what the worker works now. Owned by Run.
type floor struct {
	g       *Group
	work    context.Context
	wanted  map[int]bool
	tenures map[int]*tenure
	ended   chan *tenure // each tenure sends itself once, when nothing of it runs any more
}

// want starts the lanes that are new in the share and stops those that are not in it.
func (f *floor) want(a assignment) {
	f.wanted = make(map[int]bool, len(a.lanes))
	for _, n := range a.lanes {
		f.wanted[n] = true
	}
	for n, t := range f.tenures {
		if !f.wanted[n] {
			t.stop()
		}
	}
	f.start(a.heir)
}

// start begins the wanted lanes that do not run; a lane that is stopping begins again
// when it has stopped. An heir first ends the pin of who is dead.
func (f *floor) start(heir bool) {
	for n := range f.wanted {
		if f.tenures[n] != nil {
			continue
		}
		t := newTenure(f.g, n, f.work)
		t.heir = heir
		f.tenures[n] = t
		go func() {
			t.run()
			f.ended <- t
		}()
	}
}

func (f *floor) remove(t *tenure) {
	delete(f.tenures, t.lane)
	f.start(false)
}
