package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/attempts"
	"github.com/wirepost/wirepost/edge/loop"
)

// Deps are a Server's neighbours. All are required.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	Verifier Verifier
	Uplink   Uplink
	Downlink Downlink
}

// Server holds the sockets of an edge. Its life is New, Serve, Drain, Abort.
type Server struct {
	cfg       Config
	deps      Deps
	log       *slog.Logger
	metrics   *metrics
	keepers   []*keeper
	verifiers *pool           // nil for an echo
	attempts  *attempts.Table // nil: no bound
	listeners []Listener      // in the order that the loops know; set before they run

	nums     atomic.Uint64 // the last connection's number
	live     atomic.Int64  // connections of which something is left, if only an event in flight
	sockets  atomic.Int64  // those that hold a descriptor
	draining atomic.Bool
	empty    chan struct{} // one token when live became 0 while draining
	stopped  chan struct{} // closed by Abort

	mu      sync.Mutex
	serving bool // guarded by mu: the loops run, or are about to
	aborted bool // guarded by mu
}

// ErrAborted is returned by Serve when Abort came first.
var ErrAborted = errors.New("socket server was aborted")

// New opens what the loops need. Serve, or else Abort, gives it back.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg.setDefaults()
	return newServer(cfg, deps, func(s *Server) layer {
		s.verifiers = newPool(deps.Verifier, cfg.Verifiers, cfg.Times.Verify)
		return &gateway{srv: s}
	})
}

func newServer(cfg Config, deps Deps, above func(*Server) layer) (*Server, error) {
	s := &Server{cfg: cfg, deps: deps, log: deps.Log, empty: make(chan struct{}, 1), stopped: make(chan struct{})}
	if cfg.Attempts > 0 {
		s.attempts = attempts.New(min(cfg.Attempts, attempts.MaxRate))
	}
	// Random, so that an id is not given twice over restarts; 59 bits leave room to count.
	s.nums.Store(rand.Uint64N(1 << 59))
	l := above(s)
	for range cfg.Loops {
		k, err := newKeeper(s, l)
		if err != nil {
			s.Abort()
			return nil, fmt.Errorf("start loop: %w", err)
		}
		s.keepers = append(s.keepers, k)
	}
	s.metrics = newMetrics(deps.Registry, s)
	return s, nil
}

// Listener is where connections come from. It is a TCP listener.
type Listener struct {
	net.Listener
	// Proxied connections come from trusted proxies alone and begin with a header of the
	// PROXY protocol.
	Proxied bool
}

// Serve takes over lns, in any order, accepts their connections and works until Abort. It
// closes all listeners; the loops hold the listening sockets until Drain or Abort.
func (s *Server) Serve(lns ...Listener) error {
	defer closeAll(lns)
	defer s.Abort()
	if err := s.listen(lns); err != nil {
		return err
	}
	closeAll(lns)
	errs := make(chan error, len(s.keepers))
	for _, k := range s.keepers {
		go func() {
			err := k.loop.Run()
			if err != nil {
				s.stopLoops()
			}
			errs <- err
		}()
	}
	var all []error
	for range s.keepers {
		if err := <-errs; !errors.Is(err, loop.ErrStopped) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func closeAll(lns []Listener) {
	for _, ln := range lns {
		_ = ln.Close()
	}
}

// listen gives each loop the listeners. After it the loops are to be run.
func (s *Server) listen(lns []Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return ErrAborted
	}
	var loops []*loop.Loop[message]
	for _, k := range s.keepers {
		for _, ln := range lns {
			if err := k.loop.Listen(ln.Listener); err != nil {
				return fmt.Errorf("serve: %w", err)
			}
		}
		loops = append(loops, k.loop)
	}
	loop.Share(loops)
	s.listeners = lns
	s.serving = true
	return nil
}

// Abort cuts every connection at once: no close frames, no events, as a crash would. It
// is also the end after Drain. It may be called at any time, more than once.
func (s *Server) Abort() {
	s.mu.Lock()
	first := !s.aborted
	s.aborted = true
	if first && !s.serving {
		for _, k := range s.keepers {
			k.loop.Release()
		}
	}
	s.mu.Unlock()
	if !first {
		return
	}
	close(s.stopped)
	s.stopLoops()
	if s.verifiers != nil {
		s.verifiers.stop()
	}
}

func (s *Server) stopLoops() {
	for _, k := range s.keepers {
		k.loop.Stop()
	}
}

// Connections returns the number of connections of which something is left.
func (s *Server) Connections() int { return int(s.live.Load()) }

func (s *Server) nextNum() uint64 { return s.nums.Add(1) }

func (s *Server) oneGone() {
	if s.live.Add(-1) == 0 && s.draining.Load() {
		select {
		case s.empty <- struct{}{}:
		default:
		}
	}
}

// Drain ends the server's work in order: it stops accepting, tells Config.DrainRate
// clients a second to go, closes who stays, and waits for the last event to be stored.
// When ctx ends first the rest is closed at once, with close frames and events, which takes
// up to cutWait, and ctx's error is returned. Abort follows, after the uplink was drained too.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	for _, k := range s.keepers {
		k.loop.StopAccepting()
		k.loop.Post(message{kind: mDrain})
	}
	err := s.waitEmpty(ctx)
	if err == nil || errors.Is(err, ErrAborted) {
		return err
	}
	for _, k := range s.keepers {
		k.loop.Post(message{kind: mCut})
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutWait)
	defer cancel()
	if errors.Is(s.waitEmpty(last), ErrAborted) {
		return ErrAborted
	}
	return err
}

// cutWait is how long the loops get to close what a drain did not reach.
const cutWait = time.Second

// waitEmpty waits until nothing is left of any connection.
func (s *Server) waitEmpty(ctx context.Context) error {
	for s.live.Load() > 0 {
		select {
		case <-s.empty:
		case <-s.stopped:
			return ErrAborted
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
