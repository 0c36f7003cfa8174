package natsconn

import (
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Register registers what is measured of a connection: how often it was made anew, and when
// the certificate of its server ends. prefix is the process's, such as "wirepost_edge"; one
// connection of a process stands for all. Both are read when somebody asks.
func Register(reg prometheus.Registerer, prefix string, nc *nats.Conn) {
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: prefix + "_nats_reconnects_total",
			Help: "Times that the connection to NATS was lost and made again."},
			func() float64 { return float64(nc.Stats().Reconnects) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "_nats_certificate_end_timestamp_seconds",
			Help: "Unix time at which the certificate of the connected NATS server ends, 0 without TLS and while there is no connection."},
			func() float64 { return certificateEnd(nc) }))
}

func certificateEnd(nc *nats.Conn) float64 {
	state, err := nc.TLSConnectionState()
	if err != nil || len(state.PeerCertificates) == 0 {
		return 0
	}
	return float64(state.PeerCertificates[0].NotAfter.Unix())
}
