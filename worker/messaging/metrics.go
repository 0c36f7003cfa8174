package messaging

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
)

type metrics struct {
	events      *prometheus.CounterVec // by type
	messages    *prometheus.CounterVec // by outcome
	refusals    *prometheus.CounterVec // by code
	queriesBusy prometheus.Counter
	queryPanics prometheus.Counter
	repliesLost prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_events_total",
			Help: "Uplink events that were worked and committed, by type."}, []string{"type"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_messages_total",
			Help: "Chat messages that were committed, by what the store said: stored now, known before, reused clientMsgId, refused."}, []string{"outcome"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_refusals_total",
			Help: "Frames that were refused, by protocol code."}, []string{"code"}),
		queriesBusy: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_queries_busy_total",
			Help: "Queries that were refused because too many were at work, of all users or of one."}),
		queryPanics: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_query_panics_total",
			Help: "Queries that panicked and were refused."}),
		repliesLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_replies_lost_total",
			Help: "Direct replies that could not be published."}),
	}
	for _, t := range []envelope.Type{envelope.Connected, envelope.Frame, envelope.Disconnected, "unknown"} {
		m.events.WithLabelValues(string(t))
	}
	for _, o := range []Outcome{Stored, Known, Reused, Refused} {
		m.messages.WithLabelValues(o.String())
	}
	reg.MustRegister(m.events, m.messages, m.refusals, m.queriesBusy, m.queryPanics, m.repliesLost)
	return m
}

// count counts a batch that was committed.
func (m *metrics) count(p *plan) {
	for t, n := range p.events {
		m.events.WithLabelValues(string(t)).Add(float64(n))
	}
	for _, a := range p.stored {
		m.messages.WithLabelValues(a.Outcome.String()).Inc()
	}
	for code, n := range p.refused {
		m.refusals.WithLabelValues(strconv.Itoa(code)).Add(float64(n))
	}
}

// String names the outcome as the metrics do.
func (o Outcome) String() string {
	switch o {
	case Stored:
		return "stored"
	case Known:
		return "known"
	case Reused:
		return "reused"
	case Refused:
		return "refused"
	}
	return "unknown"
}
