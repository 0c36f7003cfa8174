package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/worker"
)

// errGone is returned when a part cannot do what was asked because it is down already.
var errGone = errors.New("it is down already")

const origins = "http://localhost:*,http://127.0.0.1:*"

// part is what edges and the worker have in common: a name and an admin port.
type part struct {
	s         *system
	name      string
	adminPort int
}

// lifeName is the name of one life: what a crash left behind must be told from what the
// successor does, so a name is never used again.
func (p *part) lifeName() string { return p.name + "-" + strings.ToLower(rand.Text()[:4]) }

func (p *part) adminURL() string { return fmt.Sprintf("http://127.0.0.1:%d", p.adminPort) }

// ready asks the admin port.
func (p *part) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.adminURL()+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// again listens on a port that was ours a moment ago.
func (p *part) again(ctx context.Context, port int) (net.Listener, error) {
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		l, err := listenOn(port)
		if err == nil || wait > time.Second {
			return l, err
		}
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

// pause waits, and reports whether it was not cut short by ctx.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// edgeSlot is one edge, over all of its lives.
type edgeSlot struct {
	part
	n     int
	port  int
	first [2]net.Listener // of the first life
	back  time.Duration

	mu  sync.Mutex
	now *edge.Edge // nil while it is away
}

func newEdgeSlot(s *system, n int, l, adm net.Listener, back time.Duration) *edgeSlot {
	return &edgeSlot{part: part{s: s, name: "edge-" + strconv.Itoa(n), adminPort: portOf(adm)}, n: n, port: portOf(l),
		first: [2]net.Listener{l, adm}, back: back}
}

func (e *edgeSlot) url() string { return fmt.Sprintf("ws://127.0.0.1:%d/ws", e.port) }

// run keeps an edge running until ctx ends: after a crash a new one, a while later.
func (e *edgeSlot) run(ctx context.Context) error {
	ls := e.first
	for {
		err := e.live(ctx, ls)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, edge.ErrAborted) {
			return fmt.Errorf("%s ended: %w", e.name, err)
		}
		if !pause(ctx, e.back) {
			return nil
		}
		for i, port := range []int{e.port, e.adminPort} {
			if ls[i], err = e.again(ctx, port); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
	}
}

// live is one life.
func (e *edgeSlot) live(ctx context.Context, ls [2]net.Listener) error {
	cfg, err := edge.LoadConfig(map[string]string{
		"EDGE_NAME": e.lifeName(), "NATS_URL": e.s.natsURL, "JWT_HS256_SECRET": string(e.s.secret), "ALLOWED_ORIGINS": origins,
		"DRAIN_NOTICE": "0s", "DRAIN_RATE": "100000",
		"FRAME_RATE": "1000", // the page sends a thousand messages at once, and all of them again after a reconnect
	})
	if err != nil {
		return err
	}
	now := edge.New(cfg, edge.Deps{Log: e.s.log.With("part", e.name), Registry: admin.NewRegistry(), Listener: ls[0], AdminListener: ls[1]})
	e.set(now)
	defer e.set(nil)
	return now.Run(ctx)
}

func (e *edgeSlot) set(now *edge.Edge) {
	e.mu.Lock()
	e.now = now
	e.mu.Unlock()
}

func (e *edgeSlot) up() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now != nil
}

// crash cuts the edge off, without a drain.
func (e *edgeSlot) crash() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == nil {
		return errGone
	}
	e.now.Abort()
	e.now = nil
	return nil
}

// workerSlot is the worker, over all of its lives.
type workerSlot struct {
	part
	log   *slog.Logger
	first net.Listener // of the first life's admin port

	mu     sync.Mutex
	paused bool
	flip   chan struct{} // closed, and made anew, when paused changes
}

func newWorkerSlot(s *system, adm net.Listener) *workerSlot {
	return &workerSlot{part: part{s: s, name: "worker", adminPort: portOf(adm)}, log: s.log.With("part", "worker"), first: adm,
		flip: make(chan struct{})}
}

// state reports whether the worker is paused, and a channel that is closed when that changes.
func (w *workerSlot) state() (paused bool, flip <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paused, w.flip
}

// pause stops the worker, or lets it work again.
func (w *workerSlot) pause(paused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused != paused {
		w.paused = paused
		close(w.flip)
		w.flip = make(chan struct{})
	}
}

// run keeps a worker running until ctx ends, but for the pauses.
func (w *workerSlot) run(ctx context.Context) error {
	adm := w.first
	for ctx.Err() == nil {
		paused, flip := w.state()
		if paused {
			select {
			case <-flip:
			case <-ctx.Done():
			}
			continue
		}
		if adm == nil {
			var err error
			if adm, err = w.again(ctx, w.adminPort); err != nil {
				return fmt.Errorf("worker: %w", err)
			}
		}
		if err := w.live(ctx, flip, adm); err != nil {
			return fmt.Errorf("worker ended: %w", err)
		}
		adm = nil
	}
	return nil
}

// live is one life; it ends with ctx or at a pause.
func (w *workerSlot) live(ctx context.Context, flip <-chan struct{}, adm net.Listener) error {
	cfg, err := worker.LoadConfig(map[string]string{
		"WORKER_NAME": w.lifeName(), "NATS_URL": w.s.natsURL, "MONGODB_URI": w.s.mongoURI,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-flip:
			stop()
		case <-ctx.Done():
		}
	}()
	return worker.New(cfg, worker.Deps{Log: w.log, Registry: admin.NewRegistry(), AdminListener: adm}).Run(ctx)
}
