package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/report"
	"github.com/wirepost/wirepost/scripts/load/stage"
	"github.com/wirepost/wirepost/scripts/load/system"
	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/usage"
)

const (
	tick   = time.Second // between two reports of a client process
	settle = 10 * time.Second
)

// aside returns what stands before the command of edges and clients: they are kept on the
// first half of the processors, so that the other half is for nats-server, the store and the
// worker, which would have machines of their own. The scheduler shares processors among
// threads: with a hundred processes that want to run, nats-server has two of some 200, and
// 4 % of the time. A priority does not do: of nice 10 they leave it 17 %, and those of the
// idle policy the scheduler never moves to a processor that has nothing to do. Empty where
// there is only one processor.
func aside() []string {
	var may unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil || may.Count() < 2 {
		return nil
	}
	var half []string
	for cpu := 0; len(half) < may.Count()/2; cpu++ {
		if may.IsSet(cpu) {
			half = append(half, strconv.Itoa(cpu))
		}
	}
	return []string{"taskset", "--cpu-list", strings.Join(half, ",")}
}

// errLost is returned when the result holds failures.
var errLost = errors.New("something was lost or failed")

// million is one run.
type million struct {
	plan   plan
	out    io.Writer
	sys    *system.System
	crew   *crew.Crew
	stage  stage.Stage
	watch  *report.Recorder
	result report.Result
	free   int64 // available memory before the first connection
}

// play starts everything, runs, prints the result, and ends everything.
func play(ctx context.Context, p plan, out io.Writer) error {
	if err := os.MkdirAll(".data", 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(".data", "million-*")
	if err != nil {
		return err
	}
	m := &million{plan: p, out: report.Shared(out)}
	if m.sys, err = system.Start(ctx, system.Spec{Dir: dir, Bin: p.bin, Edges: p.edges, Workers: 1, Store: p.store,
		EdgeBy: aside(), EdgeEnv: []string{"HEARTBEAT=" + p.heartbeat.String()}}); err != nil {
		return err
	}
	defer m.sys.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if m.crew, err = crew.Start(append(aside(), exe), m.plans()); err != nil {
		return err
	}
	defer m.crew.Close()
	m.stage = stage.Stage{Crew: m.crew, Conns: p.n, Processes: p.clients, Tick: tick}
	m.watch = report.NewRecorder(m.crew, m.sys.Groups, m.out, tally.Deliver, tally.Back, tally.Login, tally.Beat)
	m.result = report.Result{
		Mode: "million", Against: fmt.Sprintf("%d edges, 1 worker, 1 nats-server, %s", p.edges, m.sys.StoreKind()),
		Commit: checkout.Version(), Machine: report.Machine(), Began: time.Now(), Connections: p.n, Processes: p.clients,
	}
	watching, stop := context.WithCancel(ctx)
	var lines sync.WaitGroup
	lines.Go(func() { m.watch.Run(watching) })
	err = m.steps(ctx)
	stop()
	lines.Wait()
	if err != nil {
		return err
	}
	return m.finish(ctx)
}

func (m *million) plans() []agent.Plan {
	p := m.plan
	run := "million" + strings.ToLower(rand.Text()[:8])
	var all []agent.Plan
	for i := range p.clients {
		all = append(all, agent.Plan{
			URLs: m.sys.URLs(), Traffic: agent.Ring, Run: run, Index: i, Conns: crew.Share(p.n, i, p.clients),
			Secret: m.sys.Secret(), ConnectRate: p.rate / float64(p.clients), InFlight: max(1, p.inFlight/p.clients),
			Size: 100, Tick: tick,
		})
	}
	return all
}

// steps is the run itself.
func (m *million) steps(ctx context.Context) error {
	p := m.plan
	m.free = available()
	m.measure("")
	if err := m.stage.Open(ctx, p.n); err != nil {
		return err
	}
	m.result.Connect = report.ConnectOf(m.crew.State().Span, int64(p.n))
	fmt.Fprintf(m.out, "%d connections are logged in: %.0f/s\n", p.n, m.result.Connect.Rate)
	if err := m.stage.Hold(ctx, settle); err != nil {
		return err
	}
	m.measure("")
	before, began := m.watch.Sample(), time.Now()
	if err := m.stage.Hold(ctx, p.hold); err != nil {
		return err
	}
	m.cpu("holding them", time.Since(began), report.Since(before, m.watch.Sample()))
	if err := m.deliver(ctx); err != nil {
		return err
	}
	return m.crash(ctx)
}

// deliver sends one message to each user and waits for all of them.
func (m *million) deliver(ctx context.Context) error {
	before, began := m.watch.Sample(), time.Now()
	if err := m.stage.Send(m.plan.messages, m.plan.n); err != nil {
		return err
	}
	if err := m.stage.Arrived(ctx, m.plan.n); err != nil {
		return err
	}
	st, after := m.crew.State(), m.watch.Sample()
	m.result.Traffic = report.TrafficOf(st.Counts, began, time.Unix(0, st.Span.LastSend), time.Unix(0, st.Span.LastAck), before, after)
	m.expect("one message to each user", int64(m.plan.n), st.Counts[tally.Delivered])
	m.measure("the messages")
	return nil
}

// crash kills a tenth of the edges while a message goes to a tenth of the users, and waits
// until all are back and have everything.
func (m *million) crash(ctx context.Context) error {
	more := m.plan.n / 10
	if err := m.stage.Send(m.plan.messages, more); err != nil {
		return err
	}
	fmt.Fprintf(m.out, "killing %d of %d edges\n", m.plan.kill, m.plan.edges)
	c, err := m.stage.Crash(ctx, func() (int, error) { return m.plan.kill, m.sys.CrashEdges(m.plan.kill) })
	if err != nil {
		return err
	}
	m.result.Crash = c
	fmt.Fprintf(m.out, "%d connections were lost, all are back after %.1f s\n", c.Dropped, c.Back)
	if err := m.stage.Arrived(ctx, m.plan.n+more); err != nil {
		return err
	}
	st := m.crew.State()
	m.expect("connections resumed", c.Dropped, st.Counts[tally.Resumed])
	m.expect("messages during the crash too", int64(m.plan.n+more), st.Counts[tally.Delivered])
	m.measure("the crash")
	return nil
}

func (m *million) expect(what string, want, got int64) {
	fmt.Fprintf(m.out, "%s: expected %d, seen %d\n", what, want, got)
}

// measure records the memory of each group, and prints it with what the kernel holds.
func (m *million) measure(after string) {
	s := report.Step{Connections: m.crew.State().Counts[tally.Online], Use: m.watch.Sample(), After: after}
	m.result.Steps = append(m.result.Steps, s)
	fmt.Fprintf(m.out, "\nmemory with %d connections", s.Connections)
	if after != "" {
		fmt.Fprintf(m.out, ", after %s", after)
	}
	fmt.Fprintln(m.out, ":")
	for _, u := range s.Use {
		fmt.Fprintf(m.out, "  %-8s %3d processes %9.1f MiB resident %9.1f MiB proportional\n", u.Group, u.Processes, mib(u.RSS), mib(u.PSS))
	}
	if taken := m.free - available(); s.Connections > 0 {
		fmt.Fprintf(m.out, "  %.1f MiB less are available than before: %.0f bytes a connection, the kernel's sockets included\n\n",
			mib(taken), float64(taken)/float64(s.Connections))
	}
}

// cpu prints what each group used of a core.
func (m *million) cpu(when string, took time.Duration, all []usage.Use) {
	fmt.Fprintf(m.out, "CPU, %s:\n", when)
	for _, u := range all {
		fmt.Fprintf(m.out, "  %-8s %6.2f %% of a core\n", u.Group, 100*u.CPU.Seconds()/took.Seconds())
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// finish ends the clients and prints the result.
func (m *million) finish(ctx context.Context) error {
	online := m.crew.State().Counts[tally.Online]
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	st, err := m.crew.Finish(ctx)
	if err != nil {
		return err
	}
	r := &m.result
	r.Counts, r.Ends = st.Counts, st.Ends
	times := m.watch.Times()
	r.Latency, r.Seconds = report.Latencies(&times), m.watch.Seconds()
	r.Judge(online, r.Crash.Dropped)
	r.Print(m.out)
	return m.write()
}

func (m *million) write() error {
	var errs []error
	if m.plan.json != "" {
		b, err := json.MarshalIndent(&m.result, "", "  ")
		if err == nil {
			err = os.WriteFile(m.plan.json, append(b, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	if m.plan.chart != "" {
		errs = append(errs, m.result.Draw(m.plan.chart))
	}
	if len(m.result.Failures) > 0 {
		errs = append(errs, errLost)
	}
	return errors.Join(errs...)
}
