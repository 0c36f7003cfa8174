package mongostore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The operations of the store, as the metrics name them.
const (
	opAppend        = "append"
	opEnsure        = "ensure"
	opInsert        = "insert"
	opLast          = "last"
	opTwins         = "twins"
	opHistory       = "history"
	opConversations = "conversations"
	opMembers       = "members"
	opSessions      = "sessions"
	opHints         = "hints"
)

type metrics struct {
	seconds   *prometheus.HistogramVec // by op
	errors    *prometheus.CounterVec   // by op
	conflicts prometheus.Counter
	twins     prometheus.Counter
	rounds    prometheus.Histogram
	joined    prometheus.Histogram
	hintsLost prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "wirepost_worker_store_seconds",
			Help:    "How long an operation of the store took, by operation.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"op"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_store_errors_total",
			Help: "Operations of the store that failed and may be repeated, by operation."}, []string{"op"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_store_conflicts_total",
			Help: "Messages whose number was taken by another writer, so that the next one was tried."}),
		twins: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_store_twins_total",
			Help: "Messages that were found stored already under their sender and clientMsgId."}),
		rounds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "wirepost_worker_store_append_rounds",
			Help: "Rounds of inserts that one batch of messages needed.", Buckets: []float64{1, 2, 3, 4, 6, 8, 16, 64, 256}}),
		joined: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "wirepost_worker_store_joined_messages",
			Help: "Messages of one insert that several lanes may have joined.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		hintsLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_store_hints_lost_total",
			Help: "Hints for the order of conversation lists that were not written."}),
	}
	for _, op := range []string{opAppend, opEnsure, opInsert, opLast, opTwins, opHistory, opConversations, opMembers, opSessions, opHints} {
		m.seconds.WithLabelValues(op)
		m.errors.WithLabelValues(op)
	}
	reg.MustRegister(m.seconds, m.errors, m.conflicts, m.twins, m.rounds, m.joined, m.hintsLost)
	return m
}

// done records an operation that began at start.
func (m *metrics) done(op string, start time.Time, err error) {
	m.seconds.WithLabelValues(op).Observe(time.Since(start).Seconds())
	if err != nil {
		m.errors.WithLabelValues(op).Inc()
	}
}
