package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// felt is what clients felt of a step, from its beginning until the next one's.
type felt struct {
	name string
	took time.Duration   // the step itself
	away []time.Duration // of each connection that was lost, until the device's next login
	ack  []time.Duration // of each message, from its first send to the acknowledgement
}

// quantile of times, 0 of none.
func quantile(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)-1)*percent/100]
}

// feeling is a history that is being read.
type feeling struct {
	steps []felt
	began int64            // of the step
	lost  map[string]since // devices that are away
	sent  map[string]since // messages that are not acknowledged, by their ids
	quiet bool
}

// since is a moment, and the step that it fell into.
type since struct {
	t    int64
	step int
}

// feel reads what clients felt out of a history. What was before the first step stands in
// front, as "nothing": it is what the others are to be compared with.
func feel(r io.Reader) ([]felt, error) {
	f := &feeling{steps: []felt{{name: "nothing"}}, lost: map[string]since{}, sent: map[string]since{}}
	err := history.Scan(r, func(rec history.Record) error { f.add(&rec); return nil })
	return f.steps, err
}

func (f *feeling) add(r *history.Record) {
	step := len(f.steps) - 1
	switch r.Kind {
	case history.Fault:
		f.steps, f.began = append(f.steps, felt{name: r.Name}), r.T
	case history.Heal:
		f.steps[step].took = time.Duration(r.T - f.began)
	case history.Quiet:
		f.quiet = true
	case history.Close:
		if !f.quiet {
			f.lost[r.Dev] = since{r.T, step}
		}
	case history.Open:
		if s, was := f.lost[r.Dev]; was {
			delete(f.lost, r.Dev)
			f.steps[s.step].away = append(f.steps[s.step].away, time.Duration(r.T-s.t))
		}
	case history.Send:
		if !r.Again && !r.Reuse {
			f.sent[r.CID] = since{r.T, step}
		}
	case history.Ack:
		if s, was := f.sent[r.CID]; was {
			delete(f.sent, r.CID)
			f.steps[s.step].ack = append(f.steps[s.step].ack, time.Duration(r.T-s.t))
		}
	}
}

// printFelt prints a row for each step. What the checker counts is put down to the step
// that was the last to begin.
func printFelt(out io.Writer, steps []felt, rep *check.Report) {
	counted := map[string]check.FaultStat{}
	for _, f := range rep.Faults {
		counted[f.Name] = f
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "step\ttook\tmoved\taway p50\tmax\tack p50\tp99\tmax\tacked\tlost\tdoubled\tdisordered\t")
	for _, s := range steps {
		c := counted[s.name]
		fmt.Fprintf(w, "%s\t%.1fs\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t\n", s.name, s.took.Seconds(), len(s.away),
			ms(quantile(s.away, 50)), ms(quantile(s.away, 100)), ms(quantile(s.ack, 50)), ms(quantile(s.ack, 99)), ms(quantile(s.ack, 100)),
			len(s.ack), c.Lost, c.Duplicated, c.Disordered)
	}
	_ = w.Flush() // to where the caller's other lines go
}

func ms(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0fms", float64(d)/1e6)
}
