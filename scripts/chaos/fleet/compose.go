package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/servers"
)

// probeTimeout bounds one look at whether a process serves.
const probeTimeout = 2 * time.Second

// newProcess returns a process that was never started.
func (f *Fleet) newProcess(kind Kind, index int) *Process {
	name := fmt.Sprintf("%s-%d", kind, index)
	if kind == Ferret || kind == Nginx {
		name = string(kind)
	}
	return &Process{
		Name: name, Kind: kind, Index: index, Log: filepath.Join(f.spec.Dir, name+".log"), died: f.note,
		command: command{env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.spec.Dir}},
	}
}

// folder is where a process keeps its data.
func (f *Fleet) folder(p *Process) string { return filepath.Join(f.spec.Dir, p.Name) }

// addrs gives fixed addresses to fields.
func addrs(fields ...*string) error {
	for _, at := range fields {
		var err error
		if *at, err = ports.Take(); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the proxies between two processes: one to each address.
func (f *Fleet) connect(l *Link, to ...string) error {
	for _, addr := range to {
		p, err := newProxy(f.proxies, l.String(), addr)
		if err != nil {
			return err
		}
		l.ways = append(l.ways, p)
	}
	f.mu.Lock()
	f.links = append(f.links, l)
	f.mu.Unlock()
	return nil
}

// common is the environment of edges and workers alike. Each gets to each nats-server
// through a proxy of its own.
func (f *Fleet) common(p *Process) error {
	var urls []string
	for _, n := range f.nodes {
		l := &Link{A: p, B: n}
		if err := f.connect(l, n.Addr); err != nil {
			return err
		}
		urls = append(urls, f.scheme()+l.ways[0].addr())
	}
	p.command.env = append(p.command.env, "ADMIN_LISTEN="+p.Admin, "LOG_FORMAT=text", "NATS_URL="+strings.Join(urls, ","),
		"LANES="+strconv.Itoa(f.spec.Lanes), "SHARDS="+strconv.Itoa(f.spec.Shards))
	p.command.env = append(p.command.env, f.credentials(p.Kind)...)
	p.probe = func(ctx context.Context) error { return servers.Answers(ctx, "http://"+p.Admin+"/readyz") }
	return nil
}

func (f *Fleet) composeEdge(i int) error {
	p := f.newProcess(Edge, i)
	if err := addrs(&p.Addr, &p.Admin); err != nil {
		return err
	}
	if err := f.common(p); err != nil {
		return err
	}
	l := &Link{B: p}
	if err := f.connect(l, p.Addr); err != nil {
		return err
	}
	p.Public = l.ways[0].addr()
	p.command.bin = f.spec.Bin.Edge
	p.command.env = append(p.command.env, "EDGE_NAME="+p.Name, "LISTEN="+p.Addr, "JWT_HS256_SECRET="+f.spec.Secret)
	p.command.env = append(p.command.env, f.spec.EdgeEnv...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.edges = append(f.edges, p)
	return nil
}

// composeWorker puts a retired worker back on the list, or makes a new one.
func (f *Fleet) composeWorker() (*Process, error) {
	f.adding.Lock()
	defer f.adding.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	if len(f.retired) > 0 {
		p := f.retired[0]
		f.workers, f.retired = append(f.workers, p), f.retired[1:]
		return p, nil
	}
	p := f.newProcess(Worker, len(f.workers))
	f.mu.Unlock()
	err := f.furnishWorker(p)
	f.mu.Lock()
	if err != nil {
		return nil, err
	}
	f.workers = append(f.workers, p)
	return p, nil
}

func (f *Fleet) furnishWorker(p *Process) error {
	if err := addrs(&p.Admin); err != nil {
		return err
	}
	if err := f.common(p); err != nil {
		return err
	}
	uri, err := f.storeFor(p)
	if err != nil {
		return err
	}
	p.command.bin = f.spec.Bin.Worker
	p.command.env = append(p.command.env, "WORKER_NAME="+p.Name, "REPLICAS="+strconv.Itoa(f.spec.NATS), "MONGODB_URI="+uri)
	p.command.env = append(p.command.env, f.spec.WorkerEnv...)
	return nil
}
