package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
)

// built is what TestMain has built, in a folder that it removes.
var built fleet.Binaries

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wirepost-fleet-")
	if err == nil {
		built, err = fleet.Build(context.Background(), "../../..", dir, fleet.BuildOptions{Ferret: true})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for _, check := range []func() error{func() error { return os.RemoveAll(dir) }, func() error { return goleak.Find() }} {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// start starts a fleet that is closed at the test's end; its logs are shown if it fails.
func start(t *testing.T, s fleet.Spec) *fleet.Fleet {
	t.Helper()
	if s.Store.Kind == fleet.Mongo && built.Mongod == "" && os.Getenv("CI") != "true" {
		t.Skip("needs a mongod: ", servers.ErrNoMongod)
	}
	s.Dir, s.Bin = t.TempDir(), built
	s.EdgeEnv = append(s.EdgeEnv, "DRAIN_NOTICE=0s")
	began := time.Now()
	f, err := fleet.Start(within(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the fleet was ready after %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { end(t, f) })
	return f
}

// end closes a fleet and looks whether anything is left.
func end(t *testing.T, f *fleet.Fleet) {
	pids := map[string]int{}
	for _, p := range f.Processes() {
		pids[p.Name] = p.PID()
	}
	f.Close()
	f.Close() // does nothing
	for name, pid := range pids {
		if pid != 0 && syscall.Kill(pid, 0) == nil {
			t.Errorf("%s runs after Close", name)
		}
	}
	if c, err := f.Complaints(); err != nil || len(c) > 0 {
		t.Errorf("complaints: %v, %v", c, err)
	}
	for _, p := range f.Processes() {
		if err := p.Start(); !errors.Is(err, fleet.ErrClosed) {
			t.Errorf("start after Close: %v", err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", p, p.Tail(3000))
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mends awaits that a whole fleet is well again.
func mends(t *testing.T, f *fleet.Fleet, p *pair) {
	t.Helper()
	began, ctx := time.Now(), within(t, 40*time.Second)
	p.talk(t, ctx)
	talked := time.Since(began)
	must(t, f.AwaitNATS(ctx))
	must(t, f.AwaitStore(ctx))
	must(t, f.AwaitReady(ctx))
	await(t, ctx, "the lanes are empty", func() bool {
		lag, err := f.Lag(ctx)
		return err == nil && lag == 0
	})
	t.Logf("a message got through after %v, all is well after %v", talked.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// fault is one verb, or what belongs together.
type fault struct {
	name string
	do   func(t *testing.T, ctx context.Context)
}

// Every verb works once, and the system comes back after it.
func TestFaults(t *testing.T) {
	t.Parallel()
	f := start(t, fleet.Spec{Edges: 2, Workers: 2, NATS: 3, Store: fleet.Store{Kind: fleet.Mongo, Members: 3}})
	p := newPair(t, f)
	p.talk(t, within(t, 10*time.Second))
	for _, x := range slices.Concat(processFaults(f), linkFaults(f, p), natsFaults(f), storeFaults(f)) {
		if !t.Run(x.name, func(t *testing.T) {
			x.do(t, within(t, 30*time.Second))
			mends(t, f, p)
		}) {
			return
		}
	}
	if d := f.Deaths(); len(d) > 0 {
		t.Errorf("ended by themselves: %v", d)
	}
	for _, u := range f.Usage() {
		if u.CPU == 0 || u.RSS == 0 || u.Starts == 0 {
			t.Errorf("usage: %+v", u)
		}
		t.Logf("%-9v %v CPU, %d MB, %d starts", u.Process, u.CPU, u.RSS>>20, u.Starts)
	}
}

func processFaults(f *fleet.Fleet) []fault {
	edge, worker, node := f.Edges()[0], f.Workers()[0], f.Nodes()[0]
	return []fault{
		{"kill edge, worker, node", func(t *testing.T, ctx context.Context) {
			for _, x := range []*fleet.Process{edge, worker, node} {
				pid := x.PID()
				x.Kill()
				if x.Running() || syscall.Kill(pid, 0) == nil {
					t.Errorf("%s runs after Kill", x)
				}
				must(t, x.Start())
				if err := x.Start(); !errors.Is(err, fleet.ErrRunning) {
					t.Errorf("second start: %v", err)
				}
			}
		}},
		{"pause edge, worker, node", func(t *testing.T, ctx context.Context) {
			for _, x := range []*fleet.Process{edge, worker, node} {
				must(t, x.Pause())
				if err := x.Ready(within(t, 100*time.Millisecond)); err == nil || !x.Paused() || !x.Running() {
					t.Errorf("%s is ready while it is paused", x)
				}
			}
			must(t, edge.Resume())
			must(t, worker.Resume())
			node.Kill() // also while it is paused
			must(t, node.Start())
		}},
		{"terminate edge, worker", func(t *testing.T, ctx context.Context) {
			for _, x := range []*fleet.Process{edge, worker} {
				exit, err := x.Terminate()
				if err != nil || exit.Code != 0 {
					t.Errorf("%s: %+v, %v", x, exit, err)
				}
				if _, err := x.Terminate(); !errors.Is(err, fleet.ErrNotRunning) {
					t.Errorf("second end: %v", err)
				}
				t.Logf("%s took %v", x, exit.Took.Round(time.Millisecond))
				must(t, x.Start())
			}
		}},
		{"one worker more, then less", func(t *testing.T, ctx context.Context) {
			w, err := f.AddWorker()
			must(t, err)
			must(t, w.Ready(ctx))
			_, err = f.Retire(w)
			must(t, err)
			if again, err := f.AddWorker(); again != w || err != nil || len(f.Workers()) != 3 {
				t.Errorf("a retired worker is not taken again: %v, %v", again, err)
			}
		}},
	}
}

func linkFaults(f *fleet.Fleet, p *pair) []fault {
	edge, worker := f.Edges()[0], f.Workers()[0]
	return []fault{
		{"cut a route", func(t *testing.T, ctx context.Context) {
			const closed = "Router connection closed"
			a, b := f.Nodes()[0], f.Nodes()[1]
			before := [2]int{inLog(a, closed), inLog(b, closed)}
			f.Link(a, b).Cut()
			f.Link(b, a).Restore()
			await(t, ctx, "both nodes have lost a route", func() bool {
				return inLog(a, closed) > before[0] && inLog(b, closed) > before[1]
			})
		}},
		{"slow the way of an edge and of a worker", func(t *testing.T, ctx context.Context) {
			for _, l := range append(f.LinksOf(edge), f.LinksOf(worker)...) {
				l.Slow(20*time.Millisecond, 10*time.Millisecond)
			}
			p.talk(t, ctx)
			f.RestoreAll()
		}},
		{"cut an edge off its clients", func(t *testing.T, ctx context.Context) {
			f.Link(nil, edge).Cut()
			f.Link(edge, nil).Restore()
		}},
	}
}

func natsFaults(f *fleet.Fleet) []fault {
	return []fault{
		{"kill the leader of a stream", func(t *testing.T, ctx context.Context) {
			leader, err := f.StreamLeader(ctx, stream.Up(0))
			must(t, err)
			leader.Kill()
			next, err := f.StreamLeader(ctx, stream.Up(0))
			must(t, err)
			if next == leader {
				t.Errorf("%s leads and does not run", leader)
			}
			must(t, leader.Start())
		}},
		{"delete stream, consumer", func(t *testing.T, ctx context.Context) {
			must(t, f.DeleteStream(ctx, stream.Up(1)))
			if _, err := f.Lag(ctx); !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Errorf("lag without a lane: %v", err)
			}
			must(t, f.DeleteConsumer(ctx, stream.Up(2), stream.Consumer))
			awaitStreams(t, ctx, f)
		}},
		{"wipe NATS", func(t *testing.T, ctx context.Context) {
			began := time.Now()
			must(t, f.WipeNATS(ctx))
			t.Logf("wiped after %v", time.Since(began).Round(time.Millisecond))
			awaitStreams(t, ctx, f)
		}},
	}
}

func storeFaults(f *fleet.Fleet) []fault {
	worker := f.Workers()[0]
	return []fault{
		{"kill the primary", func(t *testing.T, ctx context.Context) {
			newPrimaryAfter(t, ctx, f, (*fleet.Process).Kill).Kill()
			must(t, fleet.StartAll(f.Store()))
		}},
		{"isolate the primary", func(t *testing.T, ctx context.Context) {
			old := newPrimaryAfter(t, ctx, f, func(p *fleet.Process) {
				for _, l := range f.LinksOf(p) {
					l.Cut()
				}
			})
			// It hears of no other primary, so it steps down because it hears of nobody.
			await(t, ctx, "the isolated primary steps down", func() bool { return !f.Writable(ctx, old) })
			f.RestoreAll()
		}},
		{"cut one worker off the store", func(t *testing.T, ctx context.Context) {
			for _, m := range f.Store() {
				f.Link(m, worker).Cut()
			}
			await(t, ctx, "the worker says that it is not ready", func() bool {
				return readiness(t, worker) == http.StatusServiceUnavailable
			})
			must(t, f.Workers()[1].Ready(ctx))
			f.RestoreAll()
		}},
		{"kill the whole store", func(t *testing.T, ctx context.Context) {
			fleet.KillAll(f.Store())
			must(t, fleet.StartAll(f.Store()))
		}},
	}
}

// inLog counts a text in the log of a process.
func inLog(p *fleet.Process, text string) int { return strings.Count(p.Tail(1<<20), text) }

// newPrimaryAfter does something to the primary, and returns it when there is another.
func newPrimaryAfter(t *testing.T, ctx context.Context, f *fleet.Fleet, do func(*fleet.Process)) *fleet.Process {
	t.Helper()
	old, err := f.Primary(ctx)
	must(t, err)
	began := time.Now()
	do(old)
	for next := old; next == old; {
		next, err = f.Primary(ctx)
		must(t, err)
	}
	t.Logf("another primary after %v", time.Since(began).Round(time.Millisecond))
	return old
}

// awaitStreams waits until the workers have made all streams and buckets anew.
func awaitStreams(t *testing.T, ctx context.Context, f *fleet.Fleet) {
	t.Helper()
	const all = stream.DefaultLanes + stream.DefaultShards + 1 + 2
	await(t, ctx, "all streams are there", func() bool {
		names, err := f.StreamNames(ctx)
		return err == nil && len(names) == all
	})
}

// await polls what gives no signal.
func await(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it is not so: %s", what)
		}
	}
}

// readiness is the status that a process answers.
func readiness(t *testing.T, p *fleet.Process) int {
	t.Helper()
	res, err := http.Get("http://" + p.Admin + "/readyz")
	must(t, err)
	must(t, res.Body.Close())
	return res.StatusCode
}

func TestFerret(t *testing.T) {
	t.Parallel()
	f := start(t, fleet.Spec{Edges: 1, Workers: 1, NATS: 1, Store: fleet.Store{Kind: fleet.Ferret}})
	p, ferret := newPair(t, f), f.Store()[0]
	p.talk(t, within(t, 10*time.Second))
	ferret.Kill()
	must(t, ferret.Start())
	mends(t, f, p)
	if exit, err := ferret.Terminate(); err != nil || exit.Code != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	must(t, ferret.Start())
	f.Link(f.Workers()[0], ferret).Cut()
	f.RestoreAll()
	mends(t, f, p)
	f.Nodes()[0].Kill()
	must(t, f.Nodes()[0].Start())
	mends(t, f, p)
}

// A process that ends by itself is noticed; one whose port is taken for a moment is
// started again; one that cannot live is told of with its log.
func TestDeath(t *testing.T) {
	t.Parallel()
	deaths := make(chan fleet.Death, 10)
	f := start(t, fleet.Spec{Edges: 1, Workers: 1, NATS: 1, Store: fleet.Store{Kind: fleet.Ferret},
		OnDeath: func(d fleet.Death) { deaths <- d }})
	edge := f.Edges()[0]
	must(t, syscall.Kill(edge.PID(), syscall.SIGKILL))
	select {
	case d := <-deaths:
		if d.Process != edge || d.Exit != "signal: killed" || !strings.Contains(d.Tail, "edge") {
			t.Errorf("death: %+v", d)
		}
	case <-within(t, 10*time.Second).Done():
		t.Fatal("nobody was told of a death")
	}
	if d := f.Deaths(); len(d) != 1 || edge.Running() {
		t.Errorf("deaths: %v", d)
	}
	if err := edge.Ready(within(t, 5*time.Second)); !errors.Is(err, fleet.ErrNotRunning) {
		t.Errorf("ready: %v", err)
	}
	mended := f.Workers()[0]
	mended.Kill()
	taker, err := net.Listen("tcp", mended.Admin)
	must(t, err)
	must(t, mended.Start())
	await(t, within(t, 10*time.Second), "its port is taken", func() bool { return strings.Contains(mended.Tail(2000), "address already in use") })
	must(t, taker.Close())
	must(t, mended.Ready(within(t, 10*time.Second))) // tried again
	if d := f.Deaths(); len(d) != 1 {
		t.Errorf("deaths: %v", d)
	}

	must(t, os.WriteFile(filepath.Join(filepath.Dir(edge.Log), "nats-0.conf"), []byte("nonsense {"), 0o600))
	f.Nodes()[0].Kill()
	must(t, f.Nodes()[0].Start())
	if err := f.Nodes()[0].Ready(within(t, 5*time.Second)); !errors.Is(err, fleet.ErrNotRunning) || !strings.Contains(err.Error(), "nats-0.conf") {
		t.Errorf("ready: %v", err)
	}
}
