package report

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/usage"
)

// Clients is the name of the group of the load's own processes.
const Clients = "clients"

// Recorder looks at a crew and at the servers once a second. Its methods may be called
// concurrently.
type Recorder struct {
	crew  *crew.Crew
	shown []tally.Kind // the latencies of the progress line; the first that was seen counts
	out   io.Writer

	mu      sync.Mutex
	meter   *usage.Meter
	began   time.Time
	times   tally.Times
	seconds []Second
	before  second
}

// second is what a Second is the difference to.
type second struct {
	at     time.Time
	counts tally.Counts
	cpu    time.Duration
}

// NewRecorder begins to measure. servers names the processes of the servers; it may be
// nil. Lines go to out.
func NewRecorder(c *crew.Crew, servers func() []usage.Group, out io.Writer, shown ...tally.Kind) *Recorder {
	groups := func() []usage.Group {
		all := []usage.Group{{Name: Clients, PIDs: c.PIDs()}}
		if servers != nil {
			all = append(servers(), all...)
		}
		return all
	}
	now := time.Now()
	r := &Recorder{crew: c, shown: shown, out: out, meter: usage.NewMeter(groups), began: now, before: second{at: now}}
	r.seconds = []Second{{RSS: resident(r.meter.Sample(false))}} // without connections
	return r
}

func resident(all []usage.Use) map[string]int64 {
	m := map[string]int64{}
	for _, u := range all {
		m[u.Group] = u.RSS
	}
	return m
}

// Run prints a line in each second until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			fmt.Fprintln(r.out, r.line())
		case <-ctx.Done():
			return
		}
	}
}

// line records one second.
func (r *Recorder) line() string {
	state := r.crew.State()
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.crew.TakeTimes()
	r.times.Merge(&fresh)
	now, use := time.Now(), r.meter.Sample(false)
	took := now.Sub(r.before.at).Seconds()
	rate := func(c tally.Count) float64 { return float64(state.Counts[c]-r.before.counts[c]) / took }
	cpu := serverCPU(use)
	s := Second{
		At: now.Sub(r.began).Seconds(), Online: state.Counts[tally.Online], Sent: rate(tally.Sent),
		Delivered: rate(tally.Delivered), CPU: (cpu - r.before.cpu).Seconds() / took, RSS: resident(use),
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%4.0f s  online %d  opening %d", s.At, s.Online, state.Counts[tally.Opening]+state.Counts[tally.Queued])
	if sent := state.Counts[tally.Sent]; sent > 0 {
		fmt.Fprintf(&b, "  sent %d  acked %d  delivered %d", sent, state.Counts[tally.Acked], state.Counts[tally.Delivered])
	}
	for _, k := range r.shown {
		if fresh.Count(k) > 0 {
			s.P50, s.P99 = milliseconds(fresh.Quantile(k, 0.5)), milliseconds(fresh.Quantile(k, 0.99))
			fmt.Fprintf(&b, "  %s p50 %.1f p99 %.1f ms", k, s.P50, s.P99)
			break
		}
	}
	for _, u := range use {
		fmt.Fprintf(&b, "  %s %.0f MiB", u.Group, float64(u.RSS)/mib)
	}
	fmt.Fprintf(&b, "  servers %.2f cores", s.CPU)
	r.seconds = append(r.seconds, s)
	r.before = second{now, state.Counts, cpu}
	return b.String()
}

// Sample returns what the processes use now, PSS included.
func (r *Recorder) Sample() []usage.Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.meter.Sample(true)
}

// Times returns all that was timed so far.
func (r *Recorder) Times() tally.Times {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := r.crew.TakeTimes()
	r.times.Merge(&fresh)
	var all tally.Times
	all.Merge(&r.times)
	return all
}

// Seconds returns the record of each second.
func (r *Recorder) Seconds() []Second {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Second(nil), r.seconds...)
}

func serverCPU(all []usage.Use) (sum time.Duration) {
	for _, u := range all {
		if u.Group != Clients {
			sum += u.CPU
		}
	}
	return sum
}

// TrafficOf sums up what was sent between two samples of the processes. began and last
// are the first and the last moment at which a message was due, answered is when the last
// acknowledgement came: a gateway that falls behind acknowledges for longer than was sent.
func TrafficOf(c tally.Counts, began, last, answered time.Time, before, after []usage.Use) *Traffic {
	took := max(last.Sub(began).Seconds(), 0.001)
	t := &Traffic{Seconds: took, Offered: float64(c[tally.Sent]) / took,
		Acked: float64(c[tally.Acked]) / max(answered.Sub(began).Seconds(), took), Use: Since(before, after)}
	if n := c[tally.Acked]; n > 0 {
		t.CPU = float64(serverCPU(t.Use).Microseconds()) / float64(n)
	}
	return t
}

// Since returns after with the CPU time since before, a sample of the same groups.
func Since(before, after []usage.Use) (all []usage.Use) {
	for i, u := range after {
		if i < len(before) {
			u.CPU -= before[i].CPU
		}
		all = append(all, u)
	}
	return all
}
