package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/worker"
)

const (
	childEnv = "WIREPOST_TEST_SECURITY_WORKER" // the environment of a worker, as JSON: this process is it
	secret   = "security-tests-sign-with-this-secret"
)

// child is the main function of a worker's process. SIGTERM stops it gracefully.
func child(spec string) error {
	var environ map[string]string
	if err := json.Unmarshal([]byte(spec), &environ); err != nil {
		return err
	}
	cfg, err := worker.LoadConfig(environ)
	if err != nil {
		return err
	}
	adm, err := net.Listen("tcp", cfg.AdminListen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return worker.New(cfg, worker.Deps{Log: log, Registry: admin.NewRegistry(), AdminListener: adm}).Run(ctx)
}

// system is a cluster with edges, workers and a store.
type system struct {
	*cluster
	store string // MONGODB_URI
	logs  *buffer
}

// buffer is the log of all edges and workers.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newSystem(c *cluster, store string) *system {
	s := &system{cluster: c, store: store, logs: &buffer{}}
	c.t.Cleanup(func() {
		if c.t.Failed() {
			lines := strings.Split(s.logs.String(), "\n")
			c.t.Logf("logs of edges and workers:\n%s", strings.Join(lines[max(0, len(lines)-80):], "\n"))
		}
	})
	return s
}

// environ is what both kinds of process are told, but for the keys.
func (s *system) environ(role string) map[string]string {
	return map[string]string{"NATS_URL": s.url(), "NATS_NKEY": s.keys.Seed(role), "NATS_CA": s.keys.CA(),
		"LANES": "2", "SHARDS": "2", "ADMIN_LISTEN": "127.0.0.1:0"}
}

// gateway is an edge in this process.
type gateway struct {
	s    *system
	url  string
	stop func() // drains it; may be called twice
}

// edge starts an edge and returns when it is ready.
func (s *system) edge(name string) *gateway {
	s.t.Helper()
	environ := s.environ("edge")
	maps.Copy(environ, map[string]string{"EDGE_NAME": name, "NATS_REPLAY_NKEY": s.keys.Seed("replay"), "JWT_HS256_SECRET": secret,
		"DRAIN_NOTICE": "0s", "SWEEP_INTERVAL": "1s"})
	cfg, err := edge.LoadConfig(environ)
	if err != nil {
		s.t.Fatal(err)
	}
	clients, adm := listen(s.t), listen(s.t)
	e := edge.New(cfg, edge.Deps{Log: slog.New(slog.NewTextHandler(s.logs, nil)).With("edge", name), Registry: admin.NewRegistry(), Listener: clients, AdminListener: adm})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // what Run returned
	go func() { ended <- e.Run(ctx) }()
	g := &gateway{s: s, url: "ws://" + clients.Addr().String() + "/ws", stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
	})}
	s.t.Cleanup(g.stop)
	s.awaitReady(name, adm.Addr().String())
	return g
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *system) awaitReady(name, addr string) {
	s.t.Helper()
	eventually(s.t, name+" is ready", func() bool {
		res, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// backend is a worker in a process of its own, which can be killed.
type backend struct {
	s   *system
	cmd *exec.Cmd
}

// worker starts a worker and returns when it is ready.
func (s *system) worker(name string, more map[string]string) *backend {
	s.t.Helper()
	l := listen(s.t)
	adm := l.Addr().String()
	_ = l.Close()
	environ := s.environ("worker")
	maps.Copy(environ, map[string]string{"WORKER_NAME": name, "MONGODB_URI": s.store, "MONGODB_DATABASE": databaseOf(s.store),
		"REPLICAS": fmt.Sprint(len(s.nodes)), "ADMIN_LISTEN": adm})
	maps.Copy(environ, more)
	spec, err := json.Marshal(environ)
	if err != nil {
		s.t.Fatal(err)
	}
	b := &backend{s: s, cmd: exec.Command(os.Args[0])}
	b.cmd.Env = append(os.Environ(), childEnv+"="+string(spec))
	b.cmd.Stderr = s.logs
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(b.kill)
	s.awaitReady(name, adm)
	return b
}

// kill is SIGKILL; it returns when the process is gone.
func (b *backend) kill() {
	_ = b.cmd.Process.Kill() // it may be gone
	_ = b.cmd.Wait()
}

// terminate is SIGTERM; it returns when the process has stopped.
func (b *backend) terminate() {
	b.s.t.Helper()
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	if err := b.cmd.Wait(); err != nil {
		b.s.t.Errorf("a worker that was told to stop: %v", err)
	}
}

func databaseOf(uri string) string {
	rest, _, _ := strings.Cut(uri, "?")
	return filepath.Base(rest)
}

// person is a client and what it was told. Used by one goroutine.
type person struct {
	t    testing.TB
	user string
	opts client.Options
	c    *client.Client
	stop func()

	got     []client.Message
	resumed bool // by the last login
	synced  bool // all that was stored before a login has come
}

func (s *system) person(user string, at *gateway) *person {
	p := &person{t: s.t, user: user}
	p.opts = client.Options{URLs: []string{at.url}, User: user, FromStart: true, AckTimeout: 2 * time.Second, MaxBackoff: time.Second,
		Token: func(context.Context) (string, error) { return devkeys.Token([]byte(secret), user, time.Hour) }}
	p.begin()
	return p
}

func (p *person) begin() {
	p.t.Helper()
	c, err := client.New(p.opts)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	p.c = c
	p.stop = sync.OnceFunc(func() {
		cancel()
		for range c.Events() { // Run ends when its events are read
		}
		<-done
	})
	p.t.Cleanup(p.stop)
}

// move leaves, and comes back at another edge with what it knew.
func (p *person) move(to *gateway) {
	p.stop()
	state := p.c.State()
	p.opts.State, p.opts.URLs = &state, []string{to.url}
	p.begin()
}

// send sends n messages and waits until all are stored.
func (p *person) send(to string, n int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var sent []*client.Pending
	for i := range n {
		m, err := p.c.Send(ctx, to, map[string]int{"n": i})
		if err != nil {
			p.t.Fatalf("%s sends: %v", p.user, err)
		}
		sent = append(sent, m)
	}
	for _, m := range sent {
		if _, err := m.Wait(ctx); err != nil {
			p.t.Fatalf("%s sends to %s: %v", p.user, to, err)
		}
	}
}

// await reads events until total messages have come, each in its place.
func (p *person) await(total int) {
	p.t.Helper()
	p.read(fmt.Sprintf("%d messages", total), func() bool { return len(p.got) >= total })
}

func (p *person) awaitSynced() {
	p.t.Helper()
	p.read("the end of history", func() bool { return p.synced })
}

// read reads events until it is so.
func (p *person) read(what string, enough func() bool) {
	p.t.Helper()
	for over := time.After(patience); !enough(); {
		select {
		case ev := <-p.c.Events():
			switch ev := ev.(type) {
			case client.Connected:
				p.resumed = ev.Resumed
			case client.Synced:
				p.synced = true
			case client.Message:
				if p.got = append(p.got, ev); ev.Seq != int64(len(p.got)) {
					p.t.Fatalf("%s got seq %d as message %d", p.user, ev.Seq, len(p.got))
				}
			}
		case <-over:
			p.t.Fatalf("%s waited for %s and has %d messages", p.user, what, len(p.got))
		}
	}
}
