// Package system starts a whole gateway to be loaded, as real processes on 127.0.0.1:
// a nats-server, a store, workers, and edges. Nothing stands between them, and nothing of
// it runs in this process, so that its CPU and memory are its own.
//
// scripts/chaos/fleet, which also starts systems, puts a proxy inside the calling process
// into every connection: right for breaking a system, wrong for measuring one.
package system

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/scripts/usage"
)

// Store names what messages are kept in.
type Store string

// The stores.
const (
	Auto   Store = "auto"   // Mongo when there is a mongod, else Ferret
	Mongo  Store = "mongo"  // a mongod as a replica set of one
	Ferret Store = "ferret" // FerretDB over SQLite, which make run uses
)

// Spec says what a system consists of.
type Spec struct {
	Dir     string // of data and logs; made if it is missing
	Bin     string // folder of the programs edge, worker, nats-server and ferret
	Edges   int
	Workers int
	Store   Store
	Secret  string   // of tokens, at least 32 bytes; "": a random one
	EdgeEnv []string // added to the environment of each edge, as NAME=value
	EdgeBy  []string // stands before the command of each edge, such as nice; empty: nothing
	Nginx   string   // folder of the configuration of the nginx before the edges; "": there is none
}

// System is what runs. Its methods must not be called concurrently, but Groups may.
type System struct {
	spec    Spec
	nats    *Process
	natsURL string
	mongod  *servers.Mongod
	store   *Process // FerretDB; nil with a mongod
	uri     string   // of the store
	workers []*Process
	edges   []*edge
	front   *front // nil without Spec.Nginx
}

type edge struct {
	*Process
	addr, admin string
}

// Start starts a system and returns when all of it is ready. The caller closes it.
func Start(ctx context.Context, spec Spec) (*System, error) {
	if spec.Secret == "" {
		spec.Secret = rand.Text() + rand.Text()
	}
	s := &System{spec: spec}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("start the system: %w", err)
	}
	return s, nil
}

func (s *System) start(ctx context.Context) error {
	dir, err := filepath.Abs(s.spec.Dir)
	if err != nil {
		return err
	}
	s.spec.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.startNATS(ctx); err != nil {
		return err
	}
	if err := s.startStore(ctx); err != nil {
		return err
	}
	// The workers make the streams, which edges need to be ready.
	if err := s.startWorkers(ctx); err != nil {
		return err
	}
	if err := s.startEdges(ctx); err != nil || s.spec.Nginx == "" {
		return err
	}
	return s.startFront(ctx)
}

// process composes a program of the Bin folder.
func (s *System) process(name, program string, env []string, args ...string) *Process {
	return &Process{
		Name: name, args: append([]string{filepath.Join(s.spec.Bin, program)}, args...),
		env: append(env, "PATH="+os.Getenv("PATH"), "HOME="+s.spec.Dir), log: filepath.Join(s.spec.Dir, name+".log"),
	}
}

func (s *System) startNATS(ctx context.Context) error {
	addr, err := ports.Take()
	if err != nil {
		return err
	}
	admin, err := ports.Take()
	if err != nil {
		return err
	}
	conf := filepath.Join(s.spec.Dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\nhttp: %q\njetstream { store_dir: %q, max_file_store: 64GB, max_memory_store: 4GB }\n",
		addr, admin, filepath.Join(s.spec.Dir, "nats"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	s.natsURL = "nats://" + addr
	s.nats = s.process("nats", "nats-server", nil, "-c", conf)
	if err := s.nats.Start(); err != nil {
		return err
	}
	return s.nats.await(ctx, answers("http://"+admin+"/healthz"))
}

func (s *System) startStore(ctx context.Context) error {
	kind := s.spec.Store
	if kind == Auto || kind == "" {
		kind = Mongo
		if _, err := servers.FindMongod(); err != nil {
			kind = Ferret
		}
	}
	s.spec.Store = kind
	if kind == Mongo {
		dir := filepath.Join(s.spec.Dir, "mongo")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		var err error
		if s.mongod, err = servers.StartMongod(ctx, dir); err != nil {
			return err
		}
		s.uri = s.mongod.URI()
		return nil
	}
	addr, err := ports.Take()
	if err != nil {
		return err
	}
	s.uri = "mongodb://" + addr + "/"
	s.store = s.process("ferret", "ferret", nil, "-addr", addr, "-dir", filepath.Join(s.spec.Dir, "ferret"))
	return s.store.Start() // workers wait for it
}

func (s *System) startWorkers(ctx context.Context) error {
	for i := range s.spec.Workers {
		admin, err := ports.Take()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("worker-%d", i)
		p := s.process(name, "worker", []string{
			"WORKER_NAME=" + name, "ADMIN_LISTEN=" + admin, "NATS_URL=" + s.natsURL, "MONGODB_URI=" + s.uri,
			"LOG_FORMAT=text", "LOG_LEVEL=warn"})
		if err := p.Start(); err != nil {
			return err
		}
		s.workers = append(s.workers, p)
		if err := p.await(ctx, answers("http://"+admin+"/readyz")); err != nil {
			return err
		}
	}
	return nil
}

func (s *System) startEdges(ctx context.Context) error {
	for i := range s.spec.Edges {
		addr, err := ports.Take()
		if err != nil {
			return err
		}
		admin, err := ports.Take()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("edge-%d", i)
		p := s.process(name, "edge", append([]string{
			"EDGE_NAME=" + name, "LISTEN=" + addr, "ADMIN_LISTEN=" + admin, "NATS_URL=" + s.natsURL,
			"JWT_HS256_SECRET=" + s.spec.Secret, "LOG_FORMAT=text", "LOG_LEVEL=warn", "DRAIN_NOTICE=0s",
			"FRAME_RATE=0", "BYTE_RATE=0"}, s.spec.EdgeEnv...))
		p.args = append(slices.Clone(s.spec.EdgeBy), p.args...)
		if err := p.Start(); err != nil {
			return err
		}
		s.edges = append(s.edges, &edge{p, addr, admin})
	}
	return s.AwaitEdges(ctx)
}

// AwaitEdges returns when every edge is ready.
func (s *System) AwaitEdges(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, e := range s.edges {
		g.Go(func() error { return e.await(ctx, answers("http://"+e.admin+"/readyz")) })
	}
	return g.Wait()
}

// CrashEdges kills n edges with SIGKILL, all at once, and starts them again, as whoever
// supervises them would. It returns before they are ready.
func (s *System) CrashEdges(n int) error {
	var all []*Process
	for _, e := range s.edges[:n] {
		all = append(all, e.Process)
	}
	return Restart(all)
}

// Restart kills processes with SIGKILL, all at once, and starts them again. It returns
// before they are ready.
func Restart(all []*Process) error {
	var dying sync.WaitGroup
	for _, p := range all {
		dying.Go(p.Kill)
	}
	dying.Wait()
	for _, p := range all {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

// URLs returns where clients connect.
func (s *System) URLs() []string {
	if s.front != nil {
		return []string{"ws://" + s.front.addr + "/ws"}
	}
	var all []string
	for _, e := range s.edges {
		all = append(all, "ws://"+e.addr+"/ws")
	}
	return all
}

// Secret signs the tokens that the edges accept (HS256).
func (s *System) Secret() string { return s.spec.Secret }

// StoreKind is Mongo or Ferret.
func (s *System) StoreKind() Store { return s.spec.Store }

// Groups returns the processes as they run now.
func (s *System) Groups() []usage.Group {
	edges, workers := usage.Group{Name: "edge"}, usage.Group{Name: "worker"}
	for _, e := range s.edges {
		edges.PIDs = append(edges.PIDs, e.PID())
	}
	for _, w := range s.workers {
		workers.PIDs = append(workers.PIDs, w.PID())
	}
	store := usage.Group{Name: "store"}
	if s.mongod != nil {
		store.PIDs = append(store.PIDs, s.mongod.PID())
	} else if s.store != nil {
		store.PIDs = append(store.PIDs, s.store.PID())
	}
	all := []usage.Group{edges, {Name: "nats", PIDs: []int{s.nats.PID()}}, workers, store}
	if s.front != nil {
		all = append(all, s.front.group())
	}
	return all
}

// Close kills everything and removes the data.
func (s *System) Close() {
	if s.front != nil {
		s.front.stop()
	}
	for _, e := range s.edges {
		e.Kill()
	}
	for _, p := range append(s.workers, s.nats, s.store) {
		if p != nil {
			p.Kill()
		}
	}
	if s.mongod != nil {
		s.mongod.Kill()
	}
	_ = os.RemoveAll(s.spec.Dir) // a rest of it harms nobody
}
