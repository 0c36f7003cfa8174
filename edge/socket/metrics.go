package socket

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/handshake"
)

// count names one of the sums that each loop keeps.
type count uint8

const (
	nAccepted count = iota
	nAcceptFailures
	nOpened
	nInClear
	nHandshakesLost
	nLogins
	nHeartbeats
	nPings
	nRelayed
	nDelivered
	nMessagesIn
	nFramesOut
	nBytesIn
	nBytesOut
	nLostEvents
	nLimitedFrames
	nLimitedBytes
	countKinds
)

// sums is how the counts are shown.
var sums = [countKinds]struct{ name, help string }{
	nAccepted:       {"accepted_total", "TCP connections accepted."},
	nAcceptFailures: {"accept_failures_total", "Pauses in accepting for lack of descriptors or memory."},
	nOpened:         {"handshakes_total", "Handshakes that became a WebSocket."},
	nInClear:        {"handshakes_in_clear_total", "Handshakes whose client talks to its proxy without TLS, as X-Forwarded-Proto tells."},
	nHandshakesLost: {"handshakes_lost_total", "Connections that went before their request was complete."},
	nLogins:         {"logins_total", "Connections that logged in and were attached."},
	nHeartbeats:     {"heartbeats_total", "Heartbeats of the client protocol that were answered."},
	nPings:          {"pings_total", "WebSocket pings that were received."},
	nRelayed:        {"relayed_total", "Messages handed to the uplink."},
	nDelivered:      {"delivered_total", "Frames of the downlink handed to sockets."},
	nMessagesIn:     {"messages_in_total", "Whole messages read."},
	nFramesOut:      {"frames_out_total", "WebSocket frames queued for writing."},
	nBytesIn:        {"bytes_in_total", "Bytes read from sockets."},
	nBytesOut:       {"bytes_out_total", "Bytes written to sockets."},
	nLostEvents:     {"lost_events_total", "Disconnected events that could not be stored."},
	nLimitedFrames:  {"limited_frames_total", "Pauses in reading a connection that had sent too many frames."},
	nLimitedBytes:   {"limited_bytes_total", "Pauses in reading a connection that had sent too many bytes."},
}

// counts are one loop's. Only that loop adds, so the atomics never contend; padding
// keeps the next loop's off its cache lines.
type counts struct {
	n           [countKinds]atomic.Uint64
	open        atomic.Int64 // connections behind the handshake
	limited     atomic.Int64 // connections that have sent too much
	arrivingNow atomic.Int64 // connections on their way in, as of the last tick
	buffered    atomic.Int64 // bytes lent, as of the last tick
	_           [64]byte
}

func (c *counts) add(k count, n int) { c.n[k].Add(uint64(n)) }

// metrics are the room's. Each closed connection and each refused handshake is in
// exactly one counter.
type metrics struct {
	closed  [endCount]prometheus.Counter
	refused map[handshake.Reason]prometheus.Counter
	echo    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	m := &metrics{refused: map[handshake.Reason]prometheus.Counter{}, echo: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "wirepost_edge_echo_seconds",
		Help:    "Time from the receipt of a client's message at this edge to its echo at a socket of the sender here, stored and delivered: the edge's clock alone.",
		Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60},
	})}
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
	reg.MustRegister(closed, refused, m.echo)
	s.registerSums(reg)
	return m
}

// echoed takes the echo, at now, of a message that was received at ms (downlink.Frame). A
// clock that was set back meanwhile makes it 0.
func (m *metrics) echoed(ms int64, now time.Time) {
	m.echo.Observe(max(now.Sub(time.UnixMilli(ms)), 0).Seconds())
}

// registerSums registers what the loops count.
func (s *Server) registerSums(reg prometheus.Registerer) {
	sum := func(of func(*counts) float64) func() float64 {
		return func() (all float64) {
			for _, k := range s.keepers {
				all += of(&k.counts)
			}
			return all
		}
	}
	for k, facts := range sums {
		reg.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: "wirepost_edge_" + facts.name, Help: facts.help},
			sum(func(c *counts) float64 { return float64(c.n[k].Load()) })))
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_connections", Help: "WebSocket connections that are open.",
		}, sum(func(c *counts) float64 { return float64(c.open.Load()) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_connections_arriving", Help: "Connections in the handshake or the login.",
		}, sum(func(c *counts) float64 { return float64(c.arrivingNow.Load()) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_connections_limited", Help: "Connections that are not read now because they sent too much.",
		}, sum(func(c *counts) float64 { return float64(c.limited.Load()) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wirepost_edge_buffered_bytes", Help: "Bytes of buffers lent to connections.",
		}, sum(func(c *counts) float64 { return float64(c.buffered.Load()) })))
}
