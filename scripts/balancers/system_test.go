package balancers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/servers"
)

const secret = "tests-of-load-balancers-sign-with-this-secret"

// shared is what stands behind all balancers. Set by TestMain.
var shared *system

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "wirepost-balancers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared, err = begin(dir)
	if shared != nil {
		defer shared.end()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// system is two edges, a worker, a nats-server and a store.
type system struct {
	dir    string
	bin    fleet.Binaries
	nats   *servers.NATSServer
	store  *servers.FerretServer
	worker *process
	edges  []*process
}

// begin builds and starts a system. What it returns is to be ended, also with an error.
func begin(dir string) (*system, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // with cold caches
	defer cancel()
	root, err := checkout.Root()
	if err != nil {
		return nil, err
	}
	s := &system{dir: dir}
	if s.bin, err = fleet.Build(ctx, root, dir, fleet.BuildOptions{}); err != nil {
		return nil, err
	}
	if s.nats, err = servers.StartNATS(servers.NATSOptions{StoreDir: filepath.Join(dir, "nats")}); err != nil {
		return s, err
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		return s, err
	}
	if s.store, err = servers.NewFerretServer(filepath.Join(dir, "store")); err != nil {
		return s, err
	}
	s.worker = &process{name: "worker", env: []string{"WORKER_NAME=worker", "MONGODB_URI=" + s.store.URI()}}
	if err := s.start(s.worker, s.bin.Worker); err != nil {
		return s, err
	}
	s.edges, err = s.pair("edge")
	return s, err
}

// pair starts two edges, which believe what comes from 127.0.0.1: the balancers. Clients
// come from other addresses.
func (s *system) pair(name string, env ...string) (all []*process, err error) {
	for i := range 2 {
		e := &process{name: fmt.Sprintf("%s-%d", name, i)}
		for _, at := range []*string{&e.listen, &e.proxied} {
			if *at, err = ports.Take(); err != nil {
				return all, err
			}
		}
		e.env = append([]string{"EDGE_NAME=" + e.name, "LISTEN=" + e.listen, "PROXY_LISTEN=" + e.proxied, "TRUSTED_PROXIES=127.0.0.1",
			"JWT_HS256_SECRET=" + secret}, env...)
		all = append(all, e)
		if err := s.start(e, s.bin.Edge); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (s *system) end() {
	for _, p := range append(s.edges, s.worker) {
		p.kill()
	}
	if s.store != nil {
		s.store.Stop()
	}
	if s.nats != nil {
		s.nats.Shutdown()
	}
	http.DefaultClient.CloseIdleConnections()
}

func (s *system) of(addr func(*process) string) (all []string) {
	for _, e := range s.edges {
		all = append(all, addr(e))
	}
	return all
}

func (s *system) listens() []string      { return s.of(func(e *process) string { return e.listen }) }
func (s *system) proxyListens() []string { return s.of(func(e *process) string { return e.proxied }) }
func (s *system) admins() []string       { return s.of(func(e *process) string { return e.admin }) }

// process is an edge or a worker.
type process struct {
	name            string
	env             []string
	listen, proxied string // of an edge
	admin           string
	log             string // file
	cmd             *exec.Cmd
	done            chan struct{} // closed when it has ended
}

// start returns when the process is ready.
func (s *system) start(p *process, bin string) (err error) {
	if p.admin, err = ports.Take(); err != nil {
		return err
	}
	p.log = filepath.Join(s.dir, p.name+".log")
	out, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(bin)
	p.cmd.Env = append([]string{"ADMIN_LISTEN=" + p.admin, "NATS_URL=" + s.nats.URL(), "LOG_FORMAT=text", "PATH=" + os.Getenv("PATH")}, p.env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.done = make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	for over := time.Now().Add(30 * time.Second); time.Now().Before(over); time.Sleep(20 * time.Millisecond) {
		if servers.Answers(context.Background(), "http://"+p.admin+"/readyz") == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready in time:\n%s", p.name, p.text())
}

func (p *process) kill() {
	if p != nil && p.done != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// text is what the process has logged.
func (p *process) text() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

var errNoMetric = errors.New("no such metric")

// metric is one figure of the admin port, by its series as it is printed.
func (p *process) metric(series string) (float64, error) {
	res, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = io.Copy(io.Discard, res.Body); _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "wirepost_edge_"+series+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("%w: %s", errNoMetric, series)
}

func token(t testing.TB, user string) string {
	t.Helper()
	tok, err := devkeys.Token([]byte(secret), user, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// eventually polls what gives no signal.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%v passed and it is not so: %s", within, what)
		}
	}
}
