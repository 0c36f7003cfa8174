package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wirepost/wirepost/scripts/load/system"
	"github.com/wirepost/wirepost/scripts/load/wire"
	"github.com/wirepost/wirepost/scripts/usage"
)

// target is what is loaded. Its zero value is nothing.
type target struct {
	name   string
	groups func() []usage.Group // may be nil
	kill   func() (int, error)  // all edges, and starts them again if that is its part
	own    *system.System       // nil: it was there before
	stops  []func()
}

func (t *target) close() {
	for _, stop := range t.stops {
		stop()
	}
}

// startTarget starts a system when no URL says where one is, and the edges that -edge
// gives. It fills in the URLs and the secret of the configuration.
func startTarget(ctx context.Context, cfg *config, out io.Writer) (target, error) {
	if len(cfg.urls) == 0 {
		return startOwn(ctx, cfg, out)
	}
	for _, u := range cfg.urls { // said here, not by each process
		if _, err := wire.ParseTarget(u); err != nil {
			return target{}, err
		}
	}
	t := target{name: strings.Join(cfg.urls, ", ")}
	if len(cfg.servers) > 0 {
		t.groups = func() []usage.Group { return cfg.servers }
	}
	t.kill = func() (int, error) { return len(cfg.killPIDs), killAll(cfg.killPIDs) }
	if len(cfg.edgeCmds) > 0 {
		if err := t.startEdges(cfg); err != nil {
			t.close()
			return target{}, err
		}
	}
	return t, nil
}

func startOwn(ctx context.Context, cfg *config, out io.Writer) (target, error) {
	if err := os.MkdirAll(".data", 0o700); err != nil {
		return target{}, err
	}
	dir, err := os.MkdirTemp(".data", "load-*")
	if err != nil {
		return target{}, err
	}
	fmt.Fprintf(out, "starting %d edges, a worker, a nats-server and a store; data is in %s until the end\n", cfg.own.edges, dir)
	spec := system.Spec{Dir: dir, Bin: cfg.own.bin, Edges: cfg.own.edges, Workers: 1, Store: cfg.own.store, Secret: cfg.secret}
	before := ""
	if cfg.mode == modeRolling {
		spec.Nginx = cfg.nginx
		spec.EdgeEnv = []string{fmt.Sprintf("DRAIN_RATE=%d", cfg.rate), "DRAIN_NOTICE=" + cfg.notice.String()}
		before = "nginx before "
	}
	spec.EdgeEnv = append(spec.EdgeEnv, cfg.own.env...)
	s, err := system.Start(ctx, spec)
	if err != nil {
		return target{}, err
	}
	cfg.urls, cfg.secret = s.URLs(), s.Secret()
	return target{
		name:   fmt.Sprintf("an own system (%s%d edges, 1 worker, 1 nats-server, %s)", before, cfg.own.edges, s.StoreKind()),
		groups: s.Groups,
		kill:   func() (int, error) { return cfg.own.edges, s.CrashEdges(cfg.own.edges) },
		own:    s,
		stops:  []func(){s.Close},
	}, nil
}

// startEdges starts the edges of -edge. The addresses of -url are theirs.
func (t *target) startEdges(cfg *config) error {
	dir, err := os.MkdirTemp("", "load-edges-*")
	if err != nil {
		return err
	}
	t.stops = append(t.stops, func() { _ = os.RemoveAll(dir) })
	var all []*system.Process
	for i, command := range cfg.edgeCmds {
		name := fmt.Sprintf("edge-%d", i)
		p := system.Command(name, command, filepath.Join(dir, name+".log"))
		if err := p.Start(); err != nil {
			return err
		}
		t.stops = append([]func(){p.Kill}, t.stops...)
		all = append(all, p)
	}
	servers := t.groups
	t.groups = func() []usage.Group {
		g := usage.Group{Name: "edge"}
		for _, p := range all {
			g.PIDs = append(g.PIDs, p.PID())
		}
		if servers == nil {
			return []usage.Group{g}
		}
		return append([]usage.Group{g}, servers()...)
	}
	t.kill = func() (int, error) { return len(all), system.Restart(all) }
	return nil
}

// killAll ends processes with SIGKILL; whoever supervises them starts them again.
func killAll(pids []int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return nil
}
