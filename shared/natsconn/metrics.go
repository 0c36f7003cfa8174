package natsconn

import (
	"crypto/tls"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is what is measured of a connection: how often it was made anew, and when the
// certificate of its server ends. One connection of a process stands for all.
//
// The connection tells; it is not asked, because nats.go reads its state without its lock
// when it is asked for the certificate (Conn.TLSConnectionState, 1.55) [r].
type Metrics struct {
	reconnects prometheus.Counter
	end        prometheus.Gauge
	seen       atomic.Int64 // end of the certificate of the last handshake, Unix seconds; 0: none since it was shown
}

// NewMetrics registers the metrics. prefix is the process's, such as "wirepost_edge".
func NewMetrics(reg prometheus.Registerer, prefix string) *Metrics {
	m := &Metrics{
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "_nats_reconnects_total",
			Help: "Times that the connection to NATS was lost and made again."}),
		end: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "_nats_certificate_end_timestamp_seconds",
			Help: "Unix time at which the certificate of the connected NATS server ends, 0 without TLS and while there is no connection."}),
	}
	reg.MustRegister(m.reconnects, m.end)
	return m
}

// watch is an option of nats.go that lets m see each TLS handshake, and asks for none.
func (m *Metrics) watch(o *nats.Options) error {
	if o.TLSConfig == nil {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	o.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
		m.seen.Store(state.PeerCertificates[0].NotAfter.Unix()) // a server has one
		return nil
	}
	return nil
}

func (m *Metrics) connected()    { m.end.Set(float64(m.seen.Swap(0))) }
func (m *Metrics) disconnected() { m.end.Set(0) }
