// Package site is what is attacked: bin/edge as a process of its own, and the nats-server
// and the streams that it needs, in this process.
//
// No worker runs, so that what is measured is the edge: a send ends when JetStream has it.
package site

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

// Secret signs the tokens that a site accepts.
const Secret = "attacks are signed with this secret, which opens nothing"

// startMax bounds each step of the start.
const startMax = 20 * time.Second

// Site is one edge and its NATS. Its methods may be called by any goroutine, but Stop.
type Site struct {
	Addr string // where clients connect
	Log  string // file of the edge's output
	NATS *servers.NATSServer

	admin string
	cmd   *exec.Cmd
	nc    *nats.Conn
}

// Options say how to start a Site.
type Options struct {
	Edge string   // the edge's binary
	Dir  string   // an empty folder of the site's own
	Env  []string // of the edge, beside what a site sets
	// Descriptors is the limit of open files of the edge; 0: that of this process.
	Descriptors int
}

// Start returns when the edge is ready.
func Start(o Options) (*Site, error) {
	srv, err := servers.StartNATS(servers.NATSOptions{StoreDir: filepath.Join(o.Dir, "nats")})
	if err != nil {
		return nil, err
	}
	s := &Site{NATS: srv, Log: filepath.Join(o.Dir, "edge.log")}
	if err = s.prepare(); err == nil {
		err = s.start(&o)
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// prepare connects to NATS and makes the streams.
func (s *Site) prepare() (err error) {
	if s.nc, err = nats.Connect(s.NATS.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)); err != nil {
		return err
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	return streams.Ensure(ctx, js, streams.Layout{})
}

// start runs the edge. Its addresses were free a moment ago.
func (s *Site) start(o *Options) error {
	var err error
	for _, at := range []*string{&s.Addr, &s.admin} {
		if *at, err = ports.Take(); err != nil {
			return err
		}
	}
	out, err := os.Create(s.Log)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	s.cmd = exec.Command(o.Edge)
	if o.Descriptors > 0 {
		s.cmd = exec.Command("/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, o.Descriptors), o.Edge)
	}
	s.cmd.Env = append([]string{"EDGE_NAME=attacked", "LISTEN=" + s.Addr, "ADMIN_LISTEN=" + s.admin, "NATS_URL=" + s.NATS.URL(),
		"JWT_HS256_SECRET=" + Secret, "LOG_FORMAT=text"}, o.Env...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for over := time.Now().Add(startMax); time.Now().Before(over); time.Sleep(20 * time.Millisecond) {
		if s.Ready() {
			return nil
		}
	}
	text, _ := os.ReadFile(s.Log)
	return fmt.Errorf("the edge is not ready in time:\n%s", text)
}

// Stop kills the edge and ends NATS.
func (s *Site) Stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	s.NATS.Shutdown()
	http.DefaultClient.CloseIdleConnections()
}

// Ready reports whether the edge says that it is ready.
func (s *Site) Ready() bool {
	resp, err := http.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Pid is the edge's process.
func (s *Site) Pid() int { return s.cmd.Process.Pid }

// Token signs a token for user that holds for ttl.
func Token(user string, ttl time.Duration) string {
	t, err := devkeys.Token([]byte(Secret), user, ttl)
	if err != nil { // the secret is long enough
		panic(err)
	}
	return t
}

// Deliver publishes a frame for a user, as a worker does.
func (s *Site) Deliver(user string, frame []byte) error {
	id, err := userid.Parse(user)
	if err != nil {
		return err
	}
	return s.nc.Publish(subject.Down(subject.Shard(id, 4), id), frame)
}

// Metrics are the series of the edge by name and labels as they are printed.
type Metrics map[string]float64

// Metrics reads /metrics.
func (s *Site) Metrics() (Metrics, error) {
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	m := Metrics{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if series, value, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(series, "wirepost_edge_") {
			if m[strings.TrimPrefix(series, "wirepost_edge_")], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, fmt.Errorf("metric %s: %w", series, err)
			}
		}
	}
	return m, lines.Err()
}

// Get sums the series of a metric whose labels hold all of with.
func (m Metrics) Get(name string, with ...string) float64 {
	sum := 0.0
next:
	for series, v := range m {
		base, labels, _ := strings.Cut(series, "{")
		if base != name {
			continue
		}
		for _, w := range with {
			if !strings.Contains(labels, `"`+w+`"`) {
				continue next
			}
		}
		sum += v
	}
	return sum
}

// Since returns what was added since an earlier reading.
func (m Metrics) Since(before Metrics) Metrics {
	d := Metrics{}
	for series, v := range m {
		if v -= before[series]; v != 0 {
			d[series] = v
		}
	}
	return d
}

var errProc = errors.New("unexpected text in /proc")
