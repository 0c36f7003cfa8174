package streams

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	made     prometheus.Counter
	complete prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		made: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_streams_made_total",
			Help: "Streams, consumers and buckets that this worker made because they were not there; at the first start of a system that is all of them."}),
		complete: prometheus.NewGauge(prometheus.GaugeOpts{Name: "wirepost_worker_streams_complete",
			Help: "1 when the last look found every stream, consumer and bucket as it must be, or made it so; else 0."}),
	}
	reg.MustRegister(m.made, m.complete)
	return m
}

// looked notes what became of a look, and hands it on.
func (m *metrics) looked(err error) error {
	if err != nil {
		m.complete.Set(0)
	} else {
		m.complete.Set(1)
	}
	return err
}
