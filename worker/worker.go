// Package worker is the backend process: it wires its rooms in the order in which a
// message passes them, and stops them in reverse.
//
// It keeps no state: whatever it holds, another worker can do again.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/natsconn"
	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/delivery"
	"github.com/wirepost/wirepost/worker/janitor"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/mongostore"
	"github.com/wirepost/wirepost/worker/streams"
	"github.com/wirepost/wirepost/worker/tracing"
)

const (
	// adminStop is how long requests on the admin port may take at the end.
	adminStop = 2 * time.Second
	// queriesStop is how long queries at work may take at the end; their own limit is shorter.
	queriesStop = 12 * time.Second
	// tracesStop is how long exporting the last spans may take.
	tracesStop = 5 * time.Second
	// closeStop is how long closing a connection may take.
	closeStop = 3 * time.Second
	// ensureAgain is the time between attempts to create the streams at the start.
	ensureAgain = 2 * time.Second
)

var errStarting = errors.New("not working yet")

// Deps are what a Worker is handed. All are required; the listener becomes the worker's.
type Deps struct {
	Log           *slog.Logger
	Registry      *prometheus.Registry // with the process's own collectors, see admin.NewRegistry
	AdminListener net.Listener
}

// Worker is one backend process.
type Worker struct {
	cfg   Config
	deps  Deps
	rooms atomic.Pointer[rooms] // nil until Run works
}

type rooms struct {
	nc    *nats.Conn
	store *probe
}

// New returns a worker that does nothing yet.
func New(cfg Config, deps Deps) *Worker { return &Worker{cfg: cfg, deps: deps} }

// Run works until ctx ends; then it stops fetching, finishes what it holds and releases
// its lanes. It waits for NATS and the store at the start, with readiness off. The wiring
// is one straight line on purpose: its order is the order of dependency, and each stop is
// registered where its start is.
func (w *Worker) Run(ctx context.Context) error {
	log, reg := w.deps.Log, w.deps.Registry
	stops := process.Stack{Log: log}
	alive := context.WithoutCancel(ctx)
	adm := admin.New(admin.Options{Registry: reg, Checks: w.checks(), Log: log})
	adminFailed := make(chan error, 1) // written by the admin server, read here
	go func() { adminFailed <- adm.Serve(w.deps.AdminListener) }()
	stops.Push("admin port", adminStop, adm.Stop)

	group, err := w.start(ctx, &stops)
	if err != nil {
		if ctx.Err() != nil {
			err = nil // told to stop while it waited
		}
		return errors.Join(err, stops.Drain(alive))
	}
	log.Info("worker works", "worker", w.cfg.Name, "lanes", w.cfg.Layout.Lanes, "admin", w.deps.AdminListener.Addr().String())
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1) // written by the lanes, read here
	go func() { done <- group.Run(run) }()
	select {
	case err = <-done:
	case err = <-adminFailed:
		stop()
		err = errors.Join(err, <-done)
	}
	return errors.Join(err, stops.Drain(alive))
}

// start builds the rooms; ctx bounds the wait for NATS and the store.
func (w *Worker) start(ctx context.Context, stops *process.Stack) (*lane.Group, error) {
	log, reg, cfg := w.deps.Log, w.deps.Registry, w.cfg
	nc, err := natsconn.Connect(ctx, natsconn.Options{URL: cfg.NATS.URL.Reveal(), Name: cfg.Name,
		CredsFile: cfg.NATS.CredsFile, NKeyFile: cfg.NATS.NKeyFile, CAFile: cfg.NATS.CAFile,
		InboxPrefix: stream.WorkerInbox, Log: log, Metrics: natsconn.NewMetrics(reg, "wirepost_worker")})
	if err != nil {
		return nil, err
	}
	stops.Push("nats", closeStop, func(ctx context.Context) error { return natsconn.Drain(ctx, nc) })
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	keeper := streams.NewKeeper(js, streams.Layout{Lanes: cfg.Layout.Lanes, Shards: cfg.Layout.Shards, Replicas: cfg.Layout.Replicas,
		UplinkMaxBytes: cfg.Layout.UplinkMaxBytes, DownlinkMaxBytes: cfg.Layout.DownlinkMaxBytes,
		DownlinkMaxAge: cfg.Layout.DownlinkMaxAge}, log, reg)
	if err := ensure(ctx, keeper, log); err != nil {
		return nil, err
	}
	store, err := mongostore.Open(ctx, mongostore.Options{URI: cfg.Store.URI.Reveal(), Database: cfg.Store.Database, Log: log, Registry: reg})
	if err != nil {
		return nil, err
	}
	stops.Push("store", closeStop, store.Close)
	out, err := delivery.New(nc, cfg.Layout.Shards, keeper.Missing, log, reg)
	if err != nil {
		return nil, err
	}
	stops.Push("delivery", closeStop, func(context.Context) error { return out.Close() })
	work, err := w.business(ctx, store, out, stops)
	if err != nil {
		return nil, err
	}
	group, err := lane.New(js, lane.Config{Worker: cfg.Name, Lanes: cfg.Layout.Lanes, Batch: cfg.Work.Batch, Missing: keeper.Missing}, work, log, reg)
	if err != nil {
		return nil, err
	}
	sweeper := janitor.New(store, janitor.OnJetStream(js, cfg.Layout.Shards), log, reg)
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	alive := &probe{ask: store.Ping}
	var running sync.WaitGroup
	running.Go(func() { alive.run(background) })
	running.Go(func() { keeper.Keep(background) })
	running.Go(func() { sweeper.Run(background) })
	stops.Push("keeper, janitor and probe", closeStop, func(context.Context) error { end(); running.Wait(); return nil })
	w.rooms.Store(&rooms{nc, alive})
	return group, nil
}

// business builds what lanes work with, and puts spans around its seams when they are
// wanted; otherwise nothing of them is there.
func (w *Worker) business(ctx context.Context, store messaging.Store, out messaging.Deliverer, stops *process.Stack) (lane.Business, error) {
	log, cfg := w.deps.Log, w.cfg
	around := func(b lane.Business) lane.Business { return b }
	if cfg.Traces.On() {
		traces, err := tracing.New(ctx, tracing.Options{Service: cfg.Traces.Service, Instance: cfg.Name, Version: process.Build().Version, Log: log})
		if err != nil {
			return nil, err
		}
		stops.Push("traces", tracesStop, traces.Stop)
		store, out = traces.Store(store), traces.Deliverer(out)
		around = func(b lane.Business) lane.Business { return traces.Business(b, cfg.Layout.Lanes) }
		log.Info("traces are exported", "service", cfg.Traces.Service)
	}
	s := messaging.New(store, out, cfg.Work.BodyLimit, log, w.deps.Registry)
	stops.Push("queries", queriesStop, func(context.Context) error { s.Wait(); return nil })
	return around(s), nil
}

// ensure creates the streams, and tries again while NATS or JetStream is not ready. A
// conflict with what is there is for an operator, and ends the start.
func ensure(ctx context.Context, k *streams.Keeper, log *slog.Logger) error {
	for {
		err := k.Ensure(ctx)
		var conflict *streams.Conflict
		if err == nil || errors.As(err, &conflict) || ctx.Err() != nil {
			return err
		}
		log.Warn("streams are not ready, trying again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(ensureAgain):
		}
	}
}

// checks are what readiness depends on.
func (w *Worker) checks() []admin.Check {
	working := func(check func(*rooms) error) func() error {
		return func() error {
			r := w.rooms.Load()
			if r == nil {
				return errStarting
			}
			return check(r)
		}
	}
	return []admin.Check{
		// Of its own: while NATS is waited for nothing is known of the store, and the other way
		// round, so that the alerts about them wait for this one.
		{Name: "started", Ready: working(func(*rooms) error { return nil })},
		{Name: "nats", Ready: working(func(r *rooms) error { return natsconn.Ready(r.nc) })},
		{Name: "store", Ready: working(func(r *rooms) error { return r.store.ready() })},
	}
}
