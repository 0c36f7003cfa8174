package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/dev/tap"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/process"
)

const (
	// backAfter is how long a crashed edge stays away.
	backAfter = 3 * time.Second
	// natsStop and storeStop bound the end of the embedded servers.
	natsStop  = 10 * time.Second
	storeStop = 10 * time.Second
	// readyEvery is how often readiness is asked for at the start.
	readyEvery = 100 * time.Millisecond
)

// tuning is what tests change. Zero values are the real ones.
type tuning struct {
	backAfter time.Duration
	nats      func(*servers.NATSOptions)
}

// system is everything that runs.
type system struct {
	id       string // of the data folder
	dir      string
	secret   []byte
	log      *slog.Logger
	natsURL  string
	mongoURI string // as the worker has it
	watch    *tracer
	edges    [2]*edgeSlot
	worker   *workerSlot
	page     *web
	stops    process.Stack
}

// newSystem takes the ports, starts the servers that the system stands on and builds the
// rest. What it started it stops again when it fails.
func newSystem(ctx context.Context, o options, log *slog.Logger) (*system, error) {
	s := &system{dir: absolute(o.data), log: log, stops: process.Stack{Log: log}}
	if err := s.build(ctx, o); err != nil {
		return nil, errors.Join(err, s.stops.Drain(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *system) build(ctx context.Context, o options) error {
	if err := s.takeFolder(o); err != nil {
		return err
	}
	ls, err := listen(o)
	if err != nil {
		return err
	}
	s.stops.Push("ports", time.Second, func(context.Context) error { ls.close(); return nil })
	if err := s.startNATS(o); err != nil {
		return err
	}
	if err := s.startStore(ctx, o); err != nil {
		return err
	}
	if s.watch, err = startTracer(s.natsURL); err != nil {
		return err
	}
	s.stops.Push("tracer", time.Second, func(context.Context) error { s.watch.close(); return nil })
	if err := s.startTap(o); err != nil {
		return err
	}
	back := o.tests.backAfter
	if back == 0 {
		back = backAfter
	}
	for i := range s.edges {
		s.edges[i] = newEdgeSlot(s, i+1, ls.edges[i], ls.admins[i], back)
	}
	s.worker = newWorkerSlot(s, ls.admins[2])
	s.page = newWeb(s, ls.page)
	return nil
}

// takeFolder makes the data folder and locks it: two systems on one folder would break
// each other's data. The lock ends with the process, however it ends.
func (s *system) takeFolder(o options) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return fmt.Errorf("data folder %s is in use by another make run: stop it, or choose another folder with -data", s.dir)
	}
	s.stops.Push("data folder", time.Second, func(context.Context) error { return lock.Close() })
	if s.secret, err = devkeys.Choose(o.secret, s.dir); err != nil {
		return err
	}
	s.id, err = folderID(s.dir)
	return err
}

// folderID tells this folder's data from any other's: what a browser saved belongs to it.
func folderID(dir string) (string, error) {
	path := filepath.Join(dir, "id")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b = fmt.Appendf(nil, "%x", time.Now().UnixNano())
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (s *system) startNATS(o options) error {
	if o.natsURL != "" {
		s.natsURL = o.natsURL
		return nil
	}
	opts := servers.NATSOptions{StoreDir: filepath.Join(s.dir, "nats")}
	if o.tests.nats != nil {
		o.tests.nats(&opts)
	}
	n, err := servers.StartNATS(opts)
	if err != nil {
		return err
	}
	s.natsURL = n.URL()
	s.stops.Push("nats-server", natsStop, func(context.Context) error { n.Shutdown(); return nil })
	return nil
}

func (s *system) startStore(ctx context.Context, o options) error {
	if o.mongoURI != "" {
		s.mongoURI = o.mongoURI
		return nil
	}
	uri, stop, err := servers.StartFerret(context.WithoutCancel(ctx), filepath.Join(s.dir, "store"))
	if err != nil {
		return err
	}
	s.mongoURI = uri
	s.stops.Push("store", storeStop, func(context.Context) error { stop(); return nil })
	return nil
}

// startTap puts the tap between the worker and a store that can be tapped: one server
// that is spoken to plainly. Others hide their traffic or tell the driver their own
// addresses; the way of a message then has no station "store".
func (s *system) startTap(o options) error {
	u, err := url.Parse(s.mongoURI)
	if err != nil || (o.mongoURI != "" && !tappable(u)) {
		return nil
	}
	t, err := tap.Start(u.Host, messagesCollection, s.watch.stored)
	if err != nil {
		return err
	}
	s.stops.Push("tap", time.Second, func(context.Context) error { t.Close(); return nil })
	u.Host = t.Addr()
	s.mongoURI = u.String()
	return nil
}

func tappable(u *url.URL) bool {
	q := u.Query()
	return u.Scheme == "mongodb" && !strings.Contains(u.Host, ",") && q.Get("directConnection") == "true" &&
		q.Get("tls") != "true" && q.Get("ssl") != "true" && q.Get("compressors") == ""
}

// run serves until ctx ends or a part fails, then stops: the edges drain, the worker
// finishes, and then what they stand on.
func (s *system) run(ctx context.Context) error {
	background := context.WithoutCancel(ctx)
	defer func() {
		if err := s.stops.Drain(background); err != nil {
			s.log.Warn("stop", "err", err)
		}
	}()
	// One group after the other, so that the worker takes what the edges send last.
	outer, cut := context.WithCancel(background)
	defer cut()
	front, fctx := errgroup.WithContext(ctx)
	back, bctx := errgroup.WithContext(outer)
	back.Go(func() error { return s.worker.run(bctx) })
	back.Go(func() error { return s.page.run(bctx) })
	for _, e := range s.edges {
		front.Go(func() error { return e.run(fctx) })
	}
	front.Go(func() error { // a part behind failed: the front has nothing to stand on
		select {
		case <-bctx.Done():
			return errBehind
		case <-fctx.Done():
			return nil
		}
	})
	err := front.Wait()
	cut()
	behind := back.Wait()
	if errors.Is(err, errBehind) {
		err = nil
	}
	return errors.Join(err, behind)
}

var errBehind = errors.New("a part behind the edges ended")

// awaitReady returns when every part says that it is ready.
func (s *system) awaitReady(ctx context.Context) error {
	t := time.NewTicker(readyEvery)
	defer t.Stop()
	for {
		ready := s.worker.ready(ctx)
		for _, e := range s.edges {
			ready = ready && e.ready(ctx)
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// banner says where everything is, in lines that can be pasted.
func (s *system) banner() string {
	e1, e2 := s.edges[0], s.edges[1]
	chat := "go run ./scripts/chat -user carol -to alice"
	if e1.port != 8081 {
		chat += " -url " + e1.url()
	}
	if s.dir != absolute(devkeys.Dir) {
		chat += " -data " + quoted(s.dir)
	}
	return fmt.Sprintf(`
  demo page   %s
  terminal    %s
  WebSocket   %s   %s
  admin       edge-1 %s   edge-2 %s   worker %s
  data        %s
`, s.page.url(), chat, e1.url(), e2.url(), e1.adminURL(), e2.adminURL(), s.worker.adminURL(), s.dir)
}
