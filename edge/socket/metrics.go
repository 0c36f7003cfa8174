package socket

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/handshake"
)

// counts are one loop's: only that loop adds, so the atomics never contend.
type counts struct {
	open, buffered                                     atomic.Int64
	accepted, acceptFailures, opened, handshakesLost   atomic.Uint64
	logins, heartbeats, pings, relayed, delivered      atomic.Uint64
	framesIn, framesOut, bytesIn, bytesOut, lostEvents atomic.Uint64
	_                                                  [64]byte // the next loop's counts lie on other cache lines
}

// metrics are the room's. Each closed connection and each refused handshake is in
// exactly one counter.
type metrics struct {
	closed  [endCount]prometheus.Counter
	refused map[handshake.Reason]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	m := &metrics{refused: map[handshake.Reason]prometheus.Counter{}}
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_closed_total",
		Help: "Connections that ended, by close code and reason; code peer is a close frame of the client.",
	}, []string{"code", "reason"})
	for end, facts := range ends {
		code := strconv.Itoa(int(facts.code))
		switch End(end) {
		case EndClient:
			code = "peer"
		case EndLost, EndNone:
			code = "1006"
		}
		m.closed[end] = closed.WithLabelValues(code, facts.name)
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wirepost_edge_handshakes_refused_total",
		Help: "Handshakes that were answered with an HTTP error, by reason.",
	}, []string{"reason"})
	for _, r := range handshake.Reasons() {
		m.refused[r] = refused.WithLabelValues(string(r))
	}
	reg.MustRegister(closed, refused)
	s.registerSums(reg)
	return m
}

// registerSums registers what the loops count.
func (s *Server) registerSums(reg prometheus.Registerer) {
	counter := func(name, help string, of func(*counts) *atomic.Uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "wirepost_edge_" + name, Help: help},
			func() float64 {
				var sum uint64
				for _, k := range s.keepers {
					sum += of(&k.counts).Load()
				}
				return float64(sum)
			}))
	}
	gauge := func(name, help string, of func(*counts) *atomic.Int64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "wirepost_edge_" + name, Help: help},
			func() float64 {
				var sum int64
				for _, k := range s.keepers {
					sum += of(&k.counts).Load()
				}
				return float64(sum)
			}))
	}
	gauge("connections", "WebSocket connections that are open.", func(c *counts) *atomic.Int64 { return &c.open })
	gauge("buffered_bytes", "Bytes of buffers lent to connections.", func(c *counts) *atomic.Int64 { return &c.buffered })
	counter("accepted_total", "TCP connections accepted.", func(c *counts) *atomic.Uint64 { return &c.accepted })
	counter("accept_failures_total", "Pauses in accepting for lack of descriptors or memory.", func(c *counts) *atomic.Uint64 { return &c.acceptFailures })
	counter("handshakes_total", "Handshakes that became a WebSocket.", func(c *counts) *atomic.Uint64 { return &c.opened })
	counter("handshakes_lost_total", "Connections that went before their request was complete.", func(c *counts) *atomic.Uint64 { return &c.handshakesLost })
	counter("logins_total", "Connections that logged in and were attached.", func(c *counts) *atomic.Uint64 { return &c.logins })
	counter("heartbeats_total", "Heartbeats of the client protocol that were answered.", func(c *counts) *atomic.Uint64 { return &c.heartbeats })
	counter("pings_total", "WebSocket pings that were answered.", func(c *counts) *atomic.Uint64 { return &c.pings })
	counter("relayed_total", "Messages handed to the uplink.", func(c *counts) *atomic.Uint64 { return &c.relayed })
	counter("delivered_total", "Frames of the downlink handed to sockets.", func(c *counts) *atomic.Uint64 { return &c.delivered })
	counter("messages_in_total", "Whole messages read.", func(c *counts) *atomic.Uint64 { return &c.framesIn })
	counter("frames_out_total", "WebSocket frames queued for writing.", func(c *counts) *atomic.Uint64 { return &c.framesOut })
	counter("bytes_in_total", "Bytes read from sockets.", func(c *counts) *atomic.Uint64 { return &c.bytesIn })
	counter("bytes_out_total", "Bytes written to sockets.", func(c *counts) *atomic.Uint64 { return &c.bytesOut })
	counter("lost_events_total", "Disconnected events that could not be stored.", func(c *counts) *atomic.Uint64 { return &c.lostEvents })
}
