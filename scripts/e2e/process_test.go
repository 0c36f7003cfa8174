package e2e

import (
	"bufio"
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

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/servers"
)

// binaries is where TestMain has built edge, worker, chat and token.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wirepost-e2e-")
	if err == nil {
		binaries = dir
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	servers.Main(m, func() error { return os.RemoveAll(dir) }, func() error {
		http.DefaultClient.CloseIdleConnections()
		return goleak.Find()
	})
}

func build(dir string) error {
	for name, pkg := range map[string]string{
		"edge":   "github.com/wirepost/wirepost/edge/cmd/edge",
		"worker": "github.com/wirepost/wirepost/worker/cmd/worker",
		"chat":   "github.com/wirepost/wirepost/scripts/chat",
		"token":  "github.com/wirepost/wirepost/scripts/token",
	} {
		args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(dir, name)}, buildFlags...)
		out, err := exec.Command("go", append(args, pkg)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// process is an edge or a worker. Used by one goroutine.
type process struct {
	t     testing.TB
	name  string
	bin   string
	env   []string
	addr  string // where clients connect; edges only
	admin string

	cmd  *exec.Cmd
	done chan struct{} // closed when the running process has ended
	log  string        // file
}

// newProcess starts a process with a name of its own and ports that are free now.
func newProcess(t testing.TB, bin, name string, env ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, bin: bin, admin: freeAddr(t), log: filepath.Join(t.TempDir(), name+".log")}
	p.env = append([]string{"ADMIN_LISTEN=" + p.admin, "LOG_FORMAT=text", "PATH=" + os.Getenv("PATH")}, env...)
	if bin == "edge" {
		p.addr = freeAddr(t)
		p.env = append(p.env, "EDGE_NAME="+name, "LISTEN="+p.addr)
	} else {
		p.env = append(p.env, "WORKER_NAME="+name)
	}
	t.Cleanup(func() {
		p.kill()
		p.showLog()
	})
	p.start()
	return p
}

func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(filepath.Join(binaries, p.bin))
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.env, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done, cmd := make(chan struct{}), p.cmd
	p.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// terminate is SIGTERM; it returns when the process is gone.
func (p *process) terminate() { p.end(syscall.SIGTERM) }

func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(40 * time.Second):
		p.t.Errorf("%s did not end on %v", p.name, sig)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// showLog shows the log of a test that failed. A data race in the process is a failure.
func (p *process) showLog() {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	if strings.Contains(string(b), "WARNING: DATA RACE") || strings.Contains(string(b), "panic:") {
		p.t.Errorf("%s had a data race or a panic", p.name)
	}
	if !p.t.Failed() {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) > 60 {
		lines = append(append(lines[:15:15], "…"), lines[len(lines)-45:]...)
	}
	p.t.Logf("log of %s:\n%s", p.name, strings.Join(lines, "\n"))
}

// ready reports whether /readyz says so.
func (p *process) ready() bool {
	res, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (p *process) awaitReady() {
	p.t.Helper()
	eventually(p.t, 30*time.Second, p.name+" is ready", p.ready)
}

// metric is the sum of the series of one metric whose labels hold all of with.
func (p *process) metric(name string, with ...string) float64 {
	p.t.Helper()
	res, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	defer func() { _ = res.Body.Close() }()
	sum := 0.0
	found := false
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		series, value, ok := strings.Cut(s.Text(), " ")
		metric, labels, _ := strings.Cut(series, "{")
		if !ok || metric != name {
			continue
		}
		found = true
		match := true
		for _, w := range with {
			match = match && strings.Contains(labels, w)
		}
		if v, err := strconv.ParseFloat(value, 64); match && err == nil {
			sum += v
		}
	}
	if !found {
		p.t.Fatalf("%s has no metric %s", p.name, name)
	}
	return sum
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
