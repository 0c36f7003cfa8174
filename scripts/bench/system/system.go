// Package system starts wirepost as its users run it, for measurement: bin/edge and a
// nats-server, and with a store also bin/worker and a mongod, each a process of its own,
// with the defaults of each. Nothing is between them.
package system

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/bench/proc"
	"github.com/wirepost/wirepost/worker/streams"
)

// Binaries are the programs. Worker and Mongod are needed for a store alone.
type Binaries struct{ Edge, Worker, NATS, Mongod string }

// System is what runs. Edge and NATS are always there, Worker and Mongod with a store.
type System struct {
	NATS, Edge, Worker, Mongod *proc.Process

	URL     string // of the edge's WebSocket
	Admin   string // address of the edge's admin port
	NATSURL string
	Secret  string // of the edge's tokens

	dir  string
	bin  Binaries
	all  []*proc.Process
	edge string // address of clients
}

// Start returns when the edge is ready. Stop ends it.
func Start(ctx context.Context, bin Binaries, store bool) (*System, error) {
	dir, err := os.MkdirTemp("", "wirepost-bench-")
	if err != nil {
		return nil, err
	}
	s := &System{dir: dir, bin: bin, Secret: rand.Text() + rand.Text()}
	if err := s.start(ctx, store); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start the system: %w", err)
	}
	return s, nil
}

func (s *System) start(ctx context.Context, store bool) error {
	if err := s.startNATS(ctx); err != nil {
		return err
	}
	if store {
		if err := s.startStore(ctx); err != nil {
			return err
		}
	} else if err := s.createStreams(ctx); err != nil {
		return err
	}
	return s.startEdge(ctx)
}

// Stop kills everything and removes its data.
func (s *System) Stop() {
	for i := len(s.all) - 1; i >= 0; i-- {
		s.all[i].Kill()
	}
	_ = os.RemoveAll(s.dir) // a rest in the system's folder for temporary files harms nobody
}

func (s *System) run(spec proc.Spec) (*proc.Process, error) {
	p, err := proc.Start(spec)
	if err == nil {
		s.all = append(s.all, p)
	}
	return p, err
}

func (s *System) startNATS(ctx context.Context) error {
	var err error
	if s.NATS, s.NATSURL, err = NATS(ctx, s.bin.NATS, filepath.Join(s.dir, "nats")); err == nil {
		s.all = append(s.all, s.NATS)
	}
	return err
}

// NATS starts a nats-server with JetStream over a folder and returns when it answers.
func NATS(ctx context.Context, bin, dir string) (*proc.Process, string, error) {
	addr, err := proc.FreeAddr()
	if err != nil {
		return nil, "", err
	}
	p, err := proc.Start(proc.Spec{Name: "nats-server", Bin: bin, Args: []string{"-n", "bench", "-a", host(addr), "-p", port(addr), "-js", "-sd", dir}})
	if err != nil {
		return nil, "", err
	}
	url := "nats://" + addr
	return p, url, p.Await(ctx, func(context.Context) error {
		nc, err := nats.Connect(url)
		if err == nil {
			nc.Close()
		}
		return err
	})
}

// createStreams does what a worker does at its start.
func (s *System) createStreams(ctx context.Context) error {
	nc, err := nats.Connect(s.NATSURL)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return streams.Ensure(ctx, js, streams.Layout{})
}

func (s *System) startStore(ctx context.Context) error {
	uri, err := s.startMongod(ctx)
	if err != nil {
		return err
	}
	admin, err := proc.FreeAddr()
	if err != nil {
		return err
	}
	s.Worker, err = s.run(proc.Spec{Name: "worker", Bin: s.bin.Worker, Env: []string{"WORKER_NAME=bench", "ADMIN_LISTEN=" + admin,
		"NATS_URL=" + s.NATSURL, "MONGODB_URI=" + uri, "LOG_LEVEL=warn"}})
	if err != nil {
		return err
	}
	return s.Worker.Await(ctx, ready(admin))
}

func (s *System) startEdge(ctx context.Context) error {
	var err error
	if s.edge, err = proc.FreeAddr(); err != nil {
		return err
	}
	if s.Admin, err = proc.FreeAddr(); err != nil {
		return err
	}
	s.URL = "ws://" + s.edge + "/ws"
	s.Edge, err = s.run(proc.Spec{Name: "edge", Bin: s.bin.Edge, Env: []string{"EDGE_NAME=bench", "LISTEN=" + s.edge, "ADMIN_LISTEN=" + s.Admin,
		"NATS_URL=" + s.NATSURL, "JWT_HS256_SECRET=" + s.Secret, "LOG_LEVEL=warn",
		"FRAME_RATE=0", "BYTE_RATE=0"}}) // a few connections do here what thousands do elsewhere
	if err != nil {
		return err
	}
	return s.Edge.Await(ctx, ready(s.Admin))
}

var errNotReady = errors.New("readyz says no")

func ready(admin string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return err
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errNotReady
		}
		return nil
	}
}
