package uplink

import "github.com/prometheus/client_golang/prometheus"

// outcome is what became of an event.
type outcome int

const (
	outStored outcome = iota
	outStalled
	outFull
	outTooLarge
	outClosed
	outcomes
)

var outcomeNames = [outcomes]string{"stored", "stalled", "full", "too_large", "closed"}

// retry is why an attempt failed.
type retry int

const (
	retryNoResponders retry = iota // the lane does not exist, or has no leader
	retryFull                      // the lane is at max_bytes
	retryTimeout                   // no answer in ackTimeout
	retryDisconnected
	retryOther
	retries
	stored = retry(-1) // it did not fail
)

var retryNames = [retries]string{"no_responders", "lane_full", "timeout", "disconnected", "other"}

type metrics struct {
	outcomes [outcomes]prometheus.Counter
	retries  [retries]prometheus.Counter
	late     prometheus.Counter
	inFlight prometheus.Gauge
	oldest   prometheus.Gauge
	latency  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	done := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_uplink_events_total",
		Help: "Events that left the uplink, by outcome.",
	}, []string{"outcome"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_uplink_retries_total",
		Help: "Attempts to publish that failed and were repeated, by cause.",
	}, []string{"cause"})
	m := &metrics{
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wirepost_edge_uplink_late_acks_total",
			Help: "Answers of JetStream to events that were settled already.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wirepost_edge_uplink_in_flight",
			Help: "Events that are neither stored nor given up.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wirepost_edge_uplink_oldest_seconds",
			Help: "How long the oldest of these events has been waiting, 0 when there is none.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "wirepost_edge_uplink_publish_seconds",
			Help:    "Time from a sender's publish to the PubAck, retries included.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}),
	}
	for i, name := range outcomeNames {
		m.outcomes[i] = done.WithLabelValues(name)
	}
	for i, name := range retryNames {
		m.retries[i] = failed.WithLabelValues(name)
	}
	if reg != nil {
		reg.MustRegister(done, failed, m.late, m.inFlight, m.oldest, m.latency)
	}
	return m
}
