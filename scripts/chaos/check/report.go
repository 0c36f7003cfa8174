package check

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// String is what WriteTo writes.
func (r *Report) String() string {
	var b bytes.Buffer
	r.render(&b)
	return b.String()
}

// WriteTo writes the report for a reader: the violations with what is around them, then
// the figures, then a table of the faults.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	r.render(&b)
	return b.WriteTo(w)
}

func (r *Report) render(b *bytes.Buffer) {
	for _, rule := range Rules {
		if r.Counts[rule] > 0 {
			r.renderRule(b, rule)
		}
	}
	r.renderStats(b)
	r.renderFaults(b)
	if r.OK() {
		fmt.Fprintf(b, "\nno rule was broken\n")
		return
	}
	fmt.Fprintf(b, "\nbroken rules:")
	for _, rule := range Rules {
		if n := r.Counts[rule]; n > 0 {
			fmt.Fprintf(b, " %q %d", rule, n)
		}
	}
	b.WriteByte('\n')
}

func (r *Report) renderRule(b *bytes.Buffer, rule Rule) {
	fmt.Fprintf(b, "rule %q is broken, %d times\n", rule, r.Counts[rule])
	shown := 0
	for _, v := range r.Violations {
		if v.Rule != rule {
			continue
		}
		shown++
		fmt.Fprintf(b, "  %s: %s\n", rule, v.What)
		for i := range v.Around {
			fmt.Fprintf(b, "    %s\n", line(&v.Around[i]))
		}
	}
	if more := r.Counts[rule] - shown; more > 0 {
		fmt.Fprintf(b, "  … and %d more\n", more)
	}
	b.WriteByte('\n')
}

// line renders a record: its time, its kind, and the fields that it has.
func line(r *history.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%11.6fs %-8s", time.Duration(r.T).Seconds(), r.Kind)
	word := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%s", name, clip(value))
		}
	}
	number := func(name string, value int64) {
		if value != 0 {
			fmt.Fprintf(&b, " %s=%d", name, value)
		}
	}
	word("user", r.User)
	word("dev", r.Dev)
	number("life", int64(r.Life))
	word("conn", r.Conn)
	word("edge", r.Edge)
	word("conv", r.Conv)
	number("seq", r.Seq)
	number("upto", r.Upto)
	word("cid", r.CID)
	word("from", r.From)
	word("to", r.To)
	number("code", int64(r.Code))
	for _, f := range []struct {
		name string
		on   bool
	}{{"fresh", r.Fresh}, {"slow", r.Slow}, {"resumed", r.Resumed}, {"again", r.Again}, {"reuse", r.Reuse}, {"kill", r.Kill}} {
		if f.on {
			b.WriteString(" " + f.name)
		}
	}
	number("fault", int64(r.Fault))
	word("name", r.Name)
	word("note", r.Note)
	word("body", r.Body)
	if n := len(r.Cursors); n > 0 {
		fmt.Fprintf(&b, " cursors=%d", n)
		for _, conv := range slices.Sorted(maps.Keys(r.Cursors))[:min(n, 4)] {
			fmt.Fprintf(&b, " %s:%d", clip(conv), r.Cursors[conv])
		}
	}
	return b.String()
}

// clip cuts a value that is too long for a line.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (r *Report) renderStats(b *bytes.Buffer) {
	s := &r.Stats
	if r.Run.Note != "" {
		fmt.Fprintf(b, "%s\n", r.Run.Note)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Run.Env)) {
		fmt.Fprintf(b, "%s: %s\n", name, r.Run.Env[name])
	}
	fmt.Fprintf(b, "%d records over %s: %d devices, %d lives (%d cut off), %d logins resumed, %d anew\n",
		s.Records, s.Took.Round(time.Second), s.Devices, s.Lives, s.Connections.Crashes, s.Connections.Resumed, s.Connections.Anew)
	fmt.Fprintf(b, "%d messages sent (%d again, %d with another body), %d acknowledged; %d stored + %d refused + %d of lives that were cut off, %d missing\n",
		s.Sends.Attempted, s.Sends.Again, s.Sends.Reused, s.Sends.Acked, s.Sends.Stored, s.Sends.Refused, s.Sends.Excused, s.Sends.Missing)
	fmt.Fprintf(b, "%d poisons, %d found dead\n", s.Dead.Poisons, s.Dead.Found)
	fmt.Fprintf(b, "ack p50 %s, p99 %s, max %s; live delivery p50 %s, p99 %s, max %s\n",
		short(s.Ack.P50), short(s.Ack.P99), short(s.Ack.Max), short(s.Live.P50), short(s.Live.P99), short(s.Live.Max))
}

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func (r *Report) renderFaults(b *bytes.Buffer) {
	if len(r.Faults) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tcount\tacknowledged\tlost\tduplicated\tout of order\tlongest outage\tof it after service was due")
	for _, f := range r.Faults {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", f.Name, f.Count, f.Acked, f.Lost, f.Duplicated, f.Disordered, short(f.Outage), short(f.Judged))
	}
	w.Flush()
}
