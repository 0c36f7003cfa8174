// Package report tells what a load saw: a line in each second, and at the end a table, a
// JSON document, and a chart.
//
// It also says what counts as a failure. It drives nothing.
package report

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/usage"
)

// Result is all that a run has to tell.
type Result struct {
	Mode        string            `json:"mode"`
	Against     string            `json:"against"`
	Commit      string            `json:"commit"`
	Machine     string            `json:"machine"`
	Began       time.Time         `json:"began"`
	Connections int               `json:"connections"`
	Processes   int               `json:"client_processes"`
	Connect     Connect           `json:"connect"`
	Traffic     *Traffic          `json:"traffic,omitempty"`
	Crash       *Crash            `json:"crash,omitempty"`
	Rolling     *Rolling          `json:"rolling,omitempty"`
	Counts      tally.Counts      `json:"counts"`
	Ends        map[string]int64  `json:"ends"`
	Latency     map[string]Spread `json:"latency"`
	Steps       []Step            `json:"memory"`
	Seconds     []Second          `json:"seconds"`
	Failures    []string          `json:"failures"`
}

// Connect is how the connections were opened.
type Connect struct {
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"per_second"` // logins
}

// Traffic is what was sent between the first send and the last.
type Traffic struct {
	Seconds float64     `json:"seconds"`
	Offered float64     `json:"offered_per_second"`
	Acked   float64     `json:"acknowledged_per_second"` // until the last one was
	Use     []usage.Use `json:"use"`                     // CPU from the first send until all had settled
	// CPU is that of all server processes, in microseconds for each acknowledged message.
	CPU float64 `json:"server_cpu_us_per_message"`
}

// Crash is what happened after edges were killed.
type Crash struct {
	Killed  int     `json:"killed"` // processes
	Dropped int64   `json:"dropped"`
	Back    float64 `json:"all_back_seconds"`
}

// Spread is a latency in milliseconds.
type Spread struct {
	Count                          int64 `json:"count"`
	Mean, P50, P90, P99, P999, Max float64
}

// Step is the use of memory at a number of connections.
type Step struct {
	Connections int64       `json:"connections"`
	Use         []usage.Use `json:"use"`
	// After says what had happened since the connections were opened; "": nothing. What
	// a connection costs is computed from Steps of the latter kind alone.
	After string `json:"after,omitempty"`
}

// Second is one second of a run.
type Second struct {
	At        float64          `json:"at"` // seconds since the start
	Online    int64            `json:"online"`
	Sent      float64          `json:"sent_per_second"`
	Delivered float64          `json:"delivered_per_second"`
	P50       float64          `json:"p50_ms"` // of the latency that the mode is about
	P99       float64          `json:"p99_ms"`
	CPU       float64          `json:"server_cores"`
	RSS       map[string]int64 `json:"rss"` // of each group
}

// Machine says what this runs on.
func Machine() string {
	kernel := "unknown kernel"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d CPUs, %s, %s", runtime.NumCPU(), kernel, runtime.Version())
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// SpreadOf sums up one latency.
func SpreadOf(t *tally.Times, k tally.Kind) Spread {
	q := func(q float64) float64 { return milliseconds(t.Quantile(k, q)) }
	return Spread{Count: t.Count(k), Mean: milliseconds(t.Mean(k)), P50: q(0.5), P90: q(0.9), P99: q(0.99), P999: q(0.999), Max: q(1)}
}

// Latencies sums up all that were seen.
func Latencies(t *tally.Times) map[string]Spread {
	m := map[string]Spread{}
	for _, k := range tally.Kinds() {
		if t.Count(k) > 0 {
			m[k.String()] = SpreadOf(t, k)
		}
	}
	return m
}

// ConnectOf says how fast n logins were.
func ConnectOf(s agent.Span, n int64) Connect {
	took := time.Duration(max(s.LastLogin-s.FirstDial, 1))
	return Connect{Seconds: took.Seconds(), Rate: float64(n) / took.Seconds()}
}

// atRest returns the first and the last step at which nothing else had happened; ok is
// false when they do not differ in connections.
func (r *Result) atRest() (first, last Step, ok bool) {
	for _, s := range r.Steps {
		if s.After != "" {
			continue
		}
		if last = s; first.Use == nil {
			first = s
		}
	}
	return first, last, last.Connections > first.Connections
}

// Slope returns how many bytes of a group each connection costs, between the first step
// at rest and the last. ok is false with fewer than two.
func (r *Result) Slope(group string, bytes func(usage.Use) int64) (each int64, ok bool) {
	first, last, ok := r.atRest()
	if !ok {
		return 0, false
	}
	return (of(last, group, bytes) - of(first, group, bytes)) / (last.Connections - first.Connections), true
}

func of(s Step, group string, bytes func(usage.Use) int64) (sum int64) {
	for _, u := range s.Use {
		if u.Group == group {
			sum += bytes(u)
		}
	}
	return sum
}

// Judge fills Failures. online is how many connections there were before the end;
// expected is how many of those that were lost were lost on purpose.
func (r *Result) Judge(online, expected int64) {
	c := &r.Counts
	fail := func(n int64, what string) {
		if n > 0 {
			r.Failures = append(r.Failures, fmt.Sprintf("%d %s", n, what))
		}
	}
	fail(int64(r.Connections)-online, "connections are missing at the end")
	fail(c[tally.Dropped]-expected, "connections were lost")
	fail(c[tally.Given], "connections were given up: the gateway said so")
	if r.Crash == nil {
		fail(c[tally.Failed], "tries to connect failed")
	}
	if r.Rolling == nil {
		fail(c[tally.Moved], "connections ended because an edge goes away")
	} else {
		r.Failures = append(r.Failures, r.Rolling.failures(c)...)
	}
	fail(c[tally.NotResumed], "logins were not resumed")
	fail(c[tally.Refused], "messages were refused")
	fail(c[tally.Unanswered], "messages were neither acknowledged nor refused")
	fail(c[tally.Missing], "copies of acknowledged messages did not come")
	fail(c[tally.Foreign], "messages came to somebody they were not for")
}
