package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
)

// Store is what messages are kept in.
type Store struct {
	Kind    Kind // Mongo or Ferret
	Members int  // of the replica set of mongods: 1 or 3
	// Election is after what silence of its primary a set of 3 elects another, and after
	// what silence of the others a primary steps down; 0: 4 s, which wirepost advises.
	Election time.Duration
}

// Spec says what a fleet consists of.
type Spec struct {
	Dir            string // data, configuration and logs; made if it is missing
	Bin            Binaries
	Edges, Workers int
	NATS           int // nodes: 1 or 3, which is also the number of replicas of each stream
	Store          Store
	Lanes, Shards  int // 0: the defaults of users
	// Shipped is the repository's folder k8s: three nats-servers run its configuration, with
	// TLS, accounts and keys, and an nginx with its configuration stands before the edges.
	// "": no nginx, and nats-servers that let everybody do everything.
	Shipped string
	// EdgeEnv and WorkerEnv are added to the environment, as NAME=value. Each process has
	// nothing else of this one's environment but PATH.
	EdgeEnv, WorkerEnv []string
	Secret             string      // of the clients' tokens, at least 32 bytes; "": a random one
	OnDeath            func(Death) // of a process that nobody asked to end; called concurrently; may be nil
}

// Fleet is a running system. Its methods may be called concurrently.
type Fleet struct {
	spec    Spec
	proxies *toxiproxy.ApiServer

	// Set by Start, never changed.
	nodes  []*Process // of NATS
	store  []*Process
	nginx  *Process  // nil without Spec.Shipped
	keys   setup.Dir // "" without Spec.Shipped
	fronts []*front  // one for each mongod
	own

	adding sync.Mutex // one worker at a time, before mu

	mu      sync.Mutex
	edges   []*Process
	workers []*Process
	retired []*Process // workers that AddWorker takes first
	links   []*Link
	deaths  []Death
	closed  bool
}

// own are the fleet's own connections, which go past the proxies.
type own struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	members []*mongo.Client // a direct one for each process of the store
}

var errSpec = errors.New("impossible fleet")

// Start starts a fleet and returns when all of it is ready. The caller closes it.
func Start(ctx context.Context, s Spec) (*Fleet, error) {
	if err := s.fill(); err != nil {
		return nil, err
	}
	f := &Fleet{spec: s, proxies: newProxies()}
	err := f.compose()
	if err == nil {
		err = f.launch(ctx)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("start the fleet: %w", err)
	}
	return f, nil
}

// fill sets what the spec leaves open.
func (s *Spec) fill() error {
	if s.Secret == "" {
		s.Secret = rand.Text() + rand.Text()
	}
	if s.Lanes == 0 {
		s.Lanes = stream.DefaultLanes
	}
	if s.Shards == 0 {
		s.Shards = stream.DefaultShards
	}
	if s.Store.Kind == Ferret {
		s.Store.Members = 1
	}
	switch {
	case s.Edges < 1 || s.Workers < 0:
		return fmt.Errorf("%w: %d edges, %d workers", errSpec, s.Edges, s.Workers)
	case s.NATS != 1 && s.NATS != 3:
		return fmt.Errorf("%w: %d nats-servers", errSpec, s.NATS)
	case s.Shipped != "" && s.NATS != 3:
		return fmt.Errorf("%w: the shipped configuration is for 3 nats-servers, not %d", errSpec, s.NATS)
	case s.Store.Kind != Mongo && s.Store.Kind != Ferret, s.Store.Members != 1 && s.Store.Members != 3:
		return fmt.Errorf("%w: %d members of store %q", errSpec, s.Store.Members, s.Store.Kind)
	case s.Store.Kind == Mongo && s.Bin.Mongod == "":
		return servers.ErrNoMongod
	case s.Store.Kind == Ferret && s.Bin.Ferret == "":
		return fmt.Errorf("%w: FerretDB was not built", errSpec)
	}
	var err error
	s.Dir, err = filepath.Abs(s.Dir)
	return err
}

// compose makes every process and proxy, and starts no process.
func (f *Fleet) compose() error {
	if err := os.MkdirAll(f.spec.Dir, 0o700); err != nil {
		return err
	}
	if err := f.composeNATS(); err != nil {
		return err
	}
	if err := f.composeStore(); err != nil {
		return err
	}
	for range f.spec.Workers {
		if _, err := f.composeWorker(); err != nil {
			return err
		}
	}
	for i := range f.spec.Edges {
		if err := f.composeEdge(i); err != nil {
			return err
		}
	}
	if f.spec.Shipped == "" {
		return nil
	}
	return f.composeNginx()
}

// launch starts everything and waits until it is ready.
func (f *Fleet) launch(ctx context.Context) error {
	if err := startAll(slices.Concat(f.store, f.nodes)); err != nil {
		return err
	}
	if err := f.connectNATS(); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return f.AwaitNATS(ctx) })
	g.Go(func() error { return f.beginStore(ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := startAll(append(f.Workers(), f.Edges()...)); err != nil {
		return err
	}
	if f.nginx != nil {
		if err := f.nginx.Start(); err != nil {
			return err
		}
		if err := f.nginx.Ready(ctx); err != nil {
			return err
		}
	}
	return f.AwaitReady(ctx)
}

func startAll(all []*Process) error {
	for _, p := range all {
		if err := p.Start(); err != nil && !errors.Is(err, ErrRunning) {
			return err
		}
	}
	return nil
}

// Close kills everything that the fleet has started and returns when it is gone. Folders
// and logs stay. A second call does nothing.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.closed = true // no worker is added from now on
	f.mu.Unlock()
	f.disconnect()
	if f.nginx != nil && f.nginx.Running() {
		_, _ = f.nginx.Terminate() // its workers would outlive a kill
	}
	each(f.everybody(), (*Process).close)
	for _, fr := range f.fronts {
		fr.close()
	}
	for _, l := range f.Links() {
		for _, p := range l.ways {
			p.close()
		}
	}
}

// each runs do for all at once and returns when the last is done.
func each(all []*Process, do func(*Process)) {
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() { do(p) })
	}
	wg.Wait()
}

// Secret signs the tokens that the edges accept (HS256).
func (f *Fleet) Secret() string { return f.spec.Secret }

// AddWorker starts one more worker, a retired one if there is one. It is not ready yet
// when AddWorker returns.
func (f *Fleet) AddWorker() (*Process, error) {
	p, err := f.composeWorker()
	if err != nil {
		return nil, fmt.Errorf("add a worker: %w", err)
	}
	return p, p.Start()
}

// Retire ends a worker with SIGTERM and takes it off the fleet.
func (f *Fleet) Retire(p *Process) (Exit, error) {
	f.mu.Lock()
	i := slices.Index(f.workers, p)
	if i >= 0 {
		f.workers = slices.Delete(f.workers, i, i+1)
		f.retired = append(f.retired, p)
	}
	f.mu.Unlock()
	if i < 0 {
		return Exit{}, fmt.Errorf("%w: %s is no worker of it", errSpec, p.Name)
	}
	return p.Terminate()
}

// AwaitReady returns when every running edge and worker answers that it is ready.
func (f *Fleet) AwaitReady(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range append(f.Workers(), f.Edges()...) {
		if p.Running() {
			g.Go(func() error { return p.Ready(ctx) })
		}
	}
	return g.Wait()
}
