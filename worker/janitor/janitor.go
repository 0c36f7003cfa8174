// Package janitor removes the sessions of edges that died without saying so. An edge
// leaves a mark in the downlink at least every stream.LeaseInterval; an edge with
// sessions whose mark does not move for stream.LeaseLost is lost.
//
// It never touches messages, and nothing is routed by sessions, so a session that is
// removed late, or wrongly while an edge was cut off, harms no delivery.
package janitor

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/stream"
)

// lookEvery is how often sessions and marks are compared.
const lookEvery = 15 * time.Second

// Sessions is what the janitor needs of the store.
type Sessions interface {
	// EdgesWithSessions returns the names of all edges that have a session.
	EdgesWithSessions(ctx context.Context) ([]string, error)
	// DropEdge removes all sessions of an edge and returns how many there were.
	DropEdge(ctx context.Context, edge string) (int, error)
}

// Marks tells the sequence of an edge's newest mark, 0 if it has none.
type Marks func(ctx context.Context, edge string) (uint64, error)

// Janitor is one worker's janitor. Several may run side by side.
type Janitor struct {
	sessions Sessions
	marks    Marks
	log      *slog.Logger
	dropped  prometheus.Counter

	// Owned by Run.
	seen map[string]sighting
}

// sighting is when an edge's mark was last seen to move, by this process's clock: the
// clocks of other machines are not asked.
type sighting struct {
	seq uint64
	at  time.Time
}

// New returns a janitor over the store's sessions and the edges' marks.
func New(sessions Sessions, marks Marks, log *slog.Logger, reg prometheus.Registerer) *Janitor {
	j := &Janitor{sessions: sessions, marks: marks, log: log, seen: map[string]sighting{},
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_sessions_dropped_total",
			Help: "Sessions that were removed because their edge is lost."})}
	reg.MustRegister(j.dropped)
	return j
}

// Run looks at once and then every 15 s until ctx ends.
func (j *Janitor) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := j.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			j.log.Warn("look for lost edges", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look compares the store's edges with their marks and drops those that are lost.
func (j *Janitor) look(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	edges, err := j.sessions.EdgesWithSessions(ctx)
	if err != nil {
		return err
	}
	seen := make(map[string]sighting, len(edges))
	var failed error // the last of them
	for _, edge := range edges {
		was, known := j.seen[edge]
		seq, err := j.marks(ctx, edge)
		if err != nil { // what is known of this edge stays as it was; the others are not its hostages
			if failed = err; known {
				seen[edge] = was
			}
			continue
		}
		if !known || was.seq != seq {
			seen[edge] = sighting{seq, now}
			continue
		}
		seen[edge] = was
		if now.Sub(was.at) < stream.LeaseLost {
			continue
		}
		n, err := j.sessions.DropEdge(ctx, edge)
		if err != nil {
			failed = err
			continue
		}
		delete(seen, edge)
		j.dropped.Add(float64(n))
		j.log.Info("sessions of a lost edge removed", "edge", edge, "sessions", n)
	}
	j.seen = seen
	return failed
}
