package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
)

// table sums up the rounds.
type table struct {
	o          *options
	began      time.Time
	rounds     int
	rows       map[string]check.FaultStat
	broken     map[check.Rule]int
	complaints []string
	stats      check.Stats // sums; latencies are the worst of the rounds
}

func newTable(o *options) *table {
	return &table{o: o, began: time.Now(), rows: map[string]check.FaultStat{}, broken: map[check.Rule]int{}}
}

func (t *table) complain(s string) { t.complaints = append(t.complaints, s) }

func (t *table) add(rep *check.Report) {
	t.rounds++
	for rule, n := range rep.Counts {
		t.broken[rule] += n
	}
	for _, f := range rep.Faults {
		row := t.rows[f.Name]
		row.Name = f.Name
		row.Count += f.Count
		row.Acked += f.Acked
		row.Lost += f.Lost
		row.Duplicated += f.Duplicated
		row.Disordered += f.Disordered
		row.Outage = max(row.Outage, f.Outage)
		row.Judged = max(row.Judged, f.Judged)
		t.rows[f.Name] = row
	}
	s, r := &t.stats, &rep.Stats
	s.Sends.Attempted += r.Sends.Attempted
	s.Sends.Acked += r.Sends.Acked
	s.Sends.Stored += r.Sends.Stored
	s.Sends.Refused += r.Sends.Refused
	s.Sends.Again += r.Sends.Again
	s.Sends.Reused += r.Sends.Reused
	s.Sends.Excused += r.Sends.Excused
	s.Sends.Missing += r.Sends.Missing
	s.Connections.Resumed += r.Connections.Resumed
	s.Connections.Anew += r.Connections.Anew
	s.Connections.Crashes += r.Connections.Crashes
	s.Dead.Poisons += r.Dead.Poisons
	s.Dead.Found += r.Dead.Found
	worst(&s.Ack, r.Ack)
	worst(&s.Live, r.Live)
}

func worst(to *check.Latency, l check.Latency) {
	to.N += l.N
	to.P50, to.P99, to.Max = max(to.P50, l.P50), max(to.P99, l.P99), max(to.Max, l.Max)
}

// line is one line of progress.
func (t *table) line() string {
	faults := 0
	for _, r := range t.rows {
		faults += r.Count
	}
	verdict := "no rule broken"
	if len(t.broken) > 0 {
		verdict = fmt.Sprint("broken: ", t.broken)
	}
	return fmt.Sprintf("%d faults, %d messages acknowledged, %s", faults, t.stats.Sends.Acked, verdict)
}

// deathsOfAPoison is how many workers one message kills at most: over what was in flight,
// over its crowd, and twice alone; and two lanes may share a worker's death.
const deathsOfAPoison = 5

// ok is the verdict. It looks at the processes too: one that died by itself, a panic.
func (t *table) ok(f *fleet.Fleet) bool {
	poisons := 0
	for _, d := range f.Deaths() {
		if !poisoned(d) {
			t.complain(d.String())
			continue
		}
		poisons++
	}
	if most := deathsOfAPoison * t.rows[nameOfPoison].Count; poisons > most {
		t.complain(fmt.Sprintf("%d workers were killed by themselves, and no more than %d by poisons", poisons, most))
	}
	found, err := f.Complaints()
	if err != nil {
		t.complain(err.Error())
	}
	for _, c := range found {
		t.complain(fmt.Sprintf("log of %s: %s", c.Process.Name, c.Text))
	}
	return len(t.broken) == 0 && len(t.complaints) == 0
}

func (t *table) print(f *fleet.Fleet) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w)
	fmt.Fprintln(w, "fault\tcount\tacknowledged\tlost\tduplicated\tout of order\tlongest outage\tof it judged\t")
	rows := make([]check.FaultStat, 0, len(t.rows))
	var sum check.FaultStat
	for _, r := range t.rows {
		rows = append(rows, r)
		sum.Count += r.Count
		sum.Lost += r.Lost
		sum.Duplicated += r.Duplicated
		sum.Disordered += r.Disordered
		sum.Outage, sum.Judged = max(sum.Outage, r.Outage), max(sum.Judged, r.Judged)
	}
	slices.SortFunc(rows, func(a, b check.FaultStat) int { return cmp.Compare(a.Name, b.Name) })
	sum.Name, sum.Acked = "all", t.stats.Sends.Acked
	for _, r := range append(rows, sum) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%.1f s\t%.1f s\t\n", r.Name, r.Count, r.Acked, r.Lost, r.Duplicated, r.Disordered, r.Outage.Seconds(), r.Judged.Seconds())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s := &t.stats
	fmt.Printf("\n%d messages sent (and %d again, %d with another body) = %d stored + %d refused + %d of clients that crashed + %d missing\n",
		s.Sends.Attempted, s.Sends.Again, s.Sends.Reused, s.Sends.Stored, s.Sends.Refused, s.Sends.Excused, s.Sends.Missing)
	fmt.Printf("%d logins resumed, %d anew, %d clients crashed; %d poisons, %d found dead\n",
		s.Connections.Resumed, s.Connections.Anew, s.Connections.Crashes, s.Dead.Poisons, s.Dead.Found)
	fmt.Printf("worst round: ack p50 %v p99 %v max %v; delivery p50 %v p99 %v max %v\n", s.Ack.P50.Round(ms), s.Ack.P99.Round(ms), s.Ack.Max.Round(ms),
		s.Live.P50.Round(ms), s.Live.P99.Round(ms), s.Live.Max.Round(ms))
	if f != nil {
		usage(f)
	}
	for _, c := range t.complaints {
		fmt.Println("COMPLAINT:", c)
	}
	fmt.Printf("seed %d, %s, store %s, %v: ", t.o.seed, t.o.version, t.o.store, time.Since(t.began).Round(time.Second))
	if len(t.broken) == 0 && len(t.complaints) == 0 {
		fmt.Println("every promise was kept")
		return nil
	}
	fmt.Println("BROKEN", t.broken)
	return nil
}

// usage prints where the processors' time went.
func usage(f *fleet.Fleet) {
	cpu := map[fleet.Kind]time.Duration{}
	for _, u := range f.Usage() {
		cpu[u.Process.Kind] += u.CPU
	}
	fmt.Print("CPU:")
	for _, k := range []fleet.Kind{fleet.Edge, fleet.Worker, fleet.NATS, fleet.Mongo, fleet.Ferret} {
		if cpu[k] > 0 {
			fmt.Printf(" %s %.0f s,", k, cpu[k].Seconds())
		}
	}
	var own syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil {
		fmt.Printf(" clients, proxies and checker %d s", own.Utime.Sec+own.Stime.Sec)
	}
	fmt.Println()
}
