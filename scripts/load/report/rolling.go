package report

import (
	"fmt"
	"io"
	"time"

	"github.com/wirepost/wirepost/scripts/load/system"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// Rolling is what happened while edges were replaced one by one.
type Rolling struct {
	Rate     int           `json:"drain_rate"` // sockets a second that an edge may let go
	Began    time.Time     `json:"began"`
	Seconds  float64       `json:"seconds"`
	Reloaded bool          `json:"nginx_reloaded"`
	Edges    []system.Roll `json:"edges"`
	Moved    int64         `json:"most_moved_in_a_second"`
	Tried    int64         `json:"most_connects_in_a_second"`
	In       int64         `json:"most_logins_in_a_second"`
	Away     []Away        `json:"away"`
}

// Away is how many clients were away for less than a time, and not for less than that of
// the Away before.
type Away struct {
	Below time.Duration `json:"below_ns"` // 0: no limit
	Times int64         `json:"times"`
}

var awayBounds = []time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// Saw fills in what the clients saw.
func (r *Rolling) Saw(p tally.Paces, t *tally.Times) {
	r.Moved, r.Tried, r.In = p.Moved.Most(r.Began), p.Tried.Most(r.Began), p.In.Most(r.Began)
	for i, n := range t.Spread(tally.Back, awayBounds) {
		a := Away{Times: n}
		if i < len(awayBounds) {
			a.Below = awayBounds[i]
		}
		r.Away = append(r.Away, a)
	}
}

// most is how many connections may go in any second. An edge looks at its clocks every
// 250 ms, so of its four portions a second five may fall into one, and a client that
// heeds the notice chooses its moment by chance.
func (r *Rolling) most() int64 { return int64(r.Rate) * 3 / 2 }

// failures are those that only a rolling restart can have.
func (r *Rolling) failures(c *tally.Counts) (all []string) {
	var sockets int64
	for _, e := range r.Edges {
		sockets += e.Sockets
		if e.Error != "" {
			all = append(all, e.Error)
		}
	}
	if r.Moved > r.most() {
		all = append(all, fmt.Sprintf("%d connections went in one second, of %d at most", r.Moved, r.most()))
	}
	if c[tally.Moved] < sockets {
		all = append(all, fmt.Sprintf("%d of the %d connections that edges held went in good order", c[tally.Moved], sockets))
	}
	if n := c[tally.Moved] - c[tally.Resumed]; n > 0 {
		all = append(all, fmt.Sprintf("%d connections came back without resuming", n))
	}
	if n := c[tally.Unasked]; n > 0 {
		all = append(all, fmt.Sprintf("%d copies came twice of messages that were sent once", n))
	}
	return all
}

func (r *Rolling) print(w io.Writer) {
	t := tabs(w)
	fmt.Fprintf(w, "%d edges were replaced one by one in %.1f s\n", len(r.Edges), r.Seconds)
	fmt.Fprint(t, "\nedge\tsockets\tdrain (s)\tgrace (s)\tready after (s)\t\n")
	for _, e := range r.Edges {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.2f\t\n", e.Edge, e.Sockets, e.Drain, e.Grace, e.Ready)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\nmost in a second: %d connections went (DRAIN_RATE %d), %d were begun, %d logged in\n", r.Moved, r.Rate, r.Tried, r.In)
	t = tabs(w)
	fmt.Fprint(t, "\naway\ttimes\t\n")
	for _, a := range r.Away {
		switch {
		case a.Times == 0:
		case a.Below == 0:
			fmt.Fprintf(t, "longer\t%d\t\n", a.Times)
		default:
			fmt.Fprintf(t, "< %v\t%d\t\n", a.Below, a.Times)
		}
	}
	_ = t.Flush()
}
