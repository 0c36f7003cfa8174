package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/usage"
)

// Print writes the table.
func (r *Result) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%s against %s, commit %s, %s\n", r.Mode, r.Against, r.Commit, r.Machine)
	fmt.Fprintf(w, "%d connections from %d processes, logged in within %.2f s: %.0f/s\n", r.Connections, r.Processes, r.Connect.Seconds, r.Connect.Rate)
	if t := r.Traffic; t != nil {
		fmt.Fprintf(w, "%.1f s of traffic: %.0f messages/s were due, %.0f/s acknowledged\n", t.Seconds, t.Offered, t.Acked)
		if r.Crash == nil && r.Rolling == nil && t.CPU > 0 { // else the logins are in it
			fmt.Fprintf(w, "%.1f µs of server CPU a message\n", t.CPU)
		}
	}
	if c := r.Crash; c != nil {
		fmt.Fprintf(w, "%d edges were killed: %d connections lost, all back after %.2f s\n", c.Killed, c.Dropped, c.Back)
	}
	if r.Rolling != nil {
		r.Rolling.print(w)
	}
	r.printLatency(w)
	r.printCounts(w)
	r.printMemory(w)
	if r.Traffic != nil {
		printCPU(w, r.Traffic.Use)
	}
	for _, f := range r.Failures {
		fmt.Fprintln(w, "FAILED:", f)
	}
	if len(r.Failures) == 0 {
		fmt.Fprintln(w, "nothing was lost, nothing failed")
	}
}

func tabs(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r *Result) printLatency(w io.Writer) {
	t := tabs(w)
	fmt.Fprintf(t, "\nlatency (ms)\tcount\tmean\tp50\tp90\tp99\tp99.9\tmax\t\n")
	for _, k := range tally.Kinds() {
		if s, ok := r.Latency[k.String()]; ok {
			fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", k, s.Count, s.Mean, s.P50, s.P90, s.P99, s.P999, s.Max)
		}
	}
	_ = t.Flush() // w's errors show elsewhere
}

func (r *Result) printCounts(w io.Writer) {
	t := tabs(w)
	fmt.Fprint(t, "\ncount\t\t\n")
	for c := tally.Logins; c <= tally.Missing; c++ {
		if n := r.Counts[c]; n != 0 || c >= tally.Unanswered {
			fmt.Fprintf(t, "%s\t%d\t\n", c, n)
		}
	}
	_ = t.Flush()
	for _, why := range slices.Sorted(maps.Keys(r.Ends)) {
		fmt.Fprintf(w, "%9d  %s\n", r.Ends[why], why)
	}
}

const mib = 1 << 20

func (r *Result) printMemory(w io.Writer) {
	if len(r.Steps) == 0 || len(r.Steps[0].Use) == 0 {
		return
	}
	t := tabs(w)
	fmt.Fprint(t, "\nmemory (MiB)\tprocesses\tconnections\tRSS\tPSS\tafter\t\n")
	for _, s := range r.Steps {
		for _, u := range s.Use {
			fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%.1f\t%s\t\n", u.Group, u.Processes, s.Connections, float64(u.RSS)/mib, float64(u.PSS)/mib, s.After)
		}
	}
	_ = t.Flush()
	first, last, ok := r.atRest()
	if !ok {
		return
	}
	for _, u := range first.Use {
		rss, _ := r.Slope(u.Group, func(u usage.Use) int64 { return u.RSS })
		pss, _ := r.Slope(u.Group, func(u usage.Use) int64 { return u.PSS })
		fmt.Fprintf(w, "%s: %d bytes of RSS and %d of PSS a connection, from %d to %d\n", u.Group, rss, pss, first.Connections, last.Connections)
	}
}

func printCPU(w io.Writer, all []usage.Use) {
	t := tabs(w)
	fmt.Fprint(t, "\nCPU seconds of the traffic\t\t\n")
	for _, u := range all {
		fmt.Fprintf(t, "%s\t%.2f\t\n", u.Group, u.CPU.Seconds())
	}
	_ = t.Flush()
}
