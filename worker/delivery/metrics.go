package delivery

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	frames   prometheus.Counter
	replies  prometheus.Counter
	retries  prometheus.Counter
	tooLarge prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		frames: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_downlink_frames_total",
			Help: "Frames that JetStream acknowledged; one that was published again counts once."}),
		replies: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_downlink_replies_total",
			Help: "Frames that were published without being stored."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_downlink_retries_total",
			Help: "Times that frames had to be published again."}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_downlink_too_large_total",
			Help: "Frames that were not delivered because they are larger than the server's max_payload."}),
	}
	reg.MustRegister(m.frames, m.replies, m.retries, m.tooLarge)
	return m
}
