package system

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/load/nginx"
	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/usage"
)

// frontStop is how long nginx may take to end; it cuts its sockets at once.
const frontStop = 10 * time.Second

// front is an nginx before the edges.
type front struct {
	*Process
	addr string
}

// startFront starts nginx with the configuration of Spec.Nginx, and returns when it
// accepts connections.
func (s *System) startFront(ctx context.Context) error {
	program, err := nginx.Find()
	if err != nil {
		return err
	}
	addr, err := ports.Take()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.spec.Dir, "nginx")
	a := nginx.Addresses{Listen: addr}
	for _, e := range s.edges {
		a.Edges = append(a.Edges, e.addr)
	}
	if err := nginx.Render(s.spec.Nginx, dir, a); err != nil {
		return err
	}
	if err := nginx.Check(program, dir, nginx.Single); err != nil {
		return err
	}
	p := s.process("nginx", "", nil)
	p.args = append([]string{program}, nginx.Args(dir, nginx.Single)...)
	if err := p.Start(); err != nil {
		return err
	}
	s.front = &front{p, addr}
	return p.await(ctx, func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// ReloadFront makes nginx read its configuration anew: new workers take what comes, the
// old ones keep the sockets they have.
func (s *System) ReloadFront() error {
	return syscall.Kill(s.front.PID(), syscall.SIGHUP)
}

// group is the master and its workers, which change with a reload.
func (f *front) group() usage.Group {
	return usage.Group{Name: "nginx", PIDs: append([]int{f.PID()}, usage.Children(f.PID())...)}
}

// stop ends the master, which ends its workers; by SIGKILL they would stay.
func (f *front) stop() {
	if _, err := f.Stop(frontStop); err != nil {
		f.Kill()
	}
}

// Roll is how an edge was replaced.
type Roll struct {
	Edge    string  `json:"edge"`
	Sockets int64   `json:"sockets"`       // that it held when it was told to stop
	Drain   float64 `json:"drain_seconds"` // from SIGTERM to its end
	Grace   float64 `json:"grace_seconds"` // what it had for that
	Ready   float64 `json:"ready_seconds"` // from the start of the new one to its readiness
	Error   string  `json:"error,omitempty"`
}

// Edges returns how many edges there are.
func (s *System) Edges() int { return len(s.edges) }

// RollEdge replaces edge i as a rolling update does: SIGTERM, SIGKILL when its grace is
// over, and a new one at the same address, for whose readiness it waits. grace says what
// a number of sockets may take.
func (s *System) RollEdge(ctx context.Context, i int, grace func(sockets int64) time.Duration) (Roll, error) {
	e := s.edges[i]
	n, err := metric(ctx, "http://"+e.admin+"/metrics", "wirepost_edge_connections")
	if err != nil {
		return Roll{}, fmt.Errorf("sockets of %s: %w", e.Name, err)
	}
	r := Roll{Edge: e.Name, Sockets: int64(n), Grace: grace(int64(n)).Seconds()}
	took, err := e.Stop(grace(r.Sockets))
	r.Drain = took.Seconds()
	if err != nil {
		r.Error = err.Error()
		e.Kill()
	}
	began := time.Now()
	if err := e.Start(); err != nil {
		return r, err
	}
	err = e.await(ctx, answers("http://"+e.admin+"/readyz"))
	r.Ready = time.Since(began).Seconds()
	return r, err
}
