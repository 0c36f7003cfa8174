package auth

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	verified prometheus.Counter
	refused  map[*Refusal]prometheus.Counter

	fetched, fetchFailed prometheus.Counter
	fetchedAt            prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_auth_refused_total",
		Help: "Tokens that were refused, by reason.",
	}, []string{"reason"})
	fetches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_auth_jwks_fetches_total",
		Help: "Fetches of the JWKS, by result.",
	}, []string{"result"})
	m := &metrics{
		verified: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wirepost_edge_auth_verified_total",
			Help: "Tokens that were accepted.",
		}),
		refused:     map[*Refusal]prometheus.Counter{},
		fetched:     fetches.WithLabelValues("ok"),
		fetchFailed: fetches.WithLabelValues("failed"),
		fetchedAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wirepost_edge_auth_jwks_fetched_timestamp_seconds",
			Help: "Unix time of the last successful fetch of the JWKS, 0 when there was none.",
		}),
	}
	for _, r := range refusals {
		m.refused[r] = refused.WithLabelValues(r.label)
	}
	if reg != nil {
		reg.MustRegister(refused, fetches, m.verified, m.fetchedAt)
	}
	return m
}

func (m *metrics) count(r *Refusal) {
	if r == nil {
		m.verified.Inc()
		return
	}
	m.refused[r].Inc()
}
