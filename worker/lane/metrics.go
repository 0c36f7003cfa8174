package lane

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	lag       *prometheus.GaugeVec // by lane
	oldest    *prometheus.GaugeVec // by lane
	owned     prometheus.GaugeFunc
	heard     []atomic.Int64 // by lane: when its consumer last answered the tenure here, Unix nanoseconds; 0 for none
	batch     prometheus.Histogram
	worked    *prometheus.CounterVec // by lane
	skipped   prometheus.Counter
	takeOvers prometheus.Counter
	resets    *prometheus.CounterVec // by why
	dead      prometheus.Counter
	panics    prometheus.Counter
	retries   prometheus.Counter
}

// The causes of a consumer reset.
var causes = []string{"taken over", "run broken", "reconnected", "batch given up"}

// newMetrics returns the metrics of a worker whose lanes' consumers answer, while all is well,
// more often than each silence.
func newMetrics(reg prometheus.Registerer, lanes int, silence time.Duration) *metrics {
	m := &metrics{
		heard: make([]atomic.Int64, lanes),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wirepost_worker_lane_lag",
			Help: "Messages of a lane that this worker owns which are not committed yet; 0 for the lanes of others."}, []string{"lane"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wirepost_worker_lane_oldest_seconds",
			Help: "Time since an edge received the oldest message that this worker has taken from a lane and not committed, 0 for none: the worker's clock minus the edge's."}, []string{"lane"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "wirepost_worker_lane_batch_messages",
			Help: "Messages in a batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		worked: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_lane_messages_total",
			Help: "Messages that were worked and acknowledged, by lane; those that came again count again."}, []string{"lane"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_lane_skipped_total",
			Help: "Frames that were acknowledged unworked, because all data of the lane was lost behind the frame before them; their clients send them again."}),
		takeOvers: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_lane_take_overs_total",
			Help: "Times that this worker became the owner of a lane."}),
		resets: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_worker_lane_resets_total",
			Help: "Resets of a lane's consumer to its ack floor, by cause."}, []string{"cause"}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_lane_dead_total",
			Help: "Messages that went to the dead stream."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_lane_panics_total",
			Help: "Panics of the business that were caught."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_worker_lane_retries_total",
			Help: "Times that a batch, a dead message or a lane's record had to be tried again."}),
	}
	m.owned = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "wirepost_worker_lanes_owned",
		Help: "Lanes of this worker's share whose consumers have answered it in the last seconds."},
		func() float64 { return float64(m.served(time.Now().Add(-silence))) })
	for lane := range lanes {
		m.lag.WithLabelValues(strconv.Itoa(lane))
		m.oldest.WithLabelValues(strconv.Itoa(lane))
		m.worked.WithLabelValues(strconv.Itoa(lane))
	}
	for _, c := range causes {
		m.resets.WithLabelValues(c)
	}
	reg.MustRegister(m.lag, m.oldest, m.owned, m.batch, m.worked, m.skipped, m.takeOvers, m.resets, m.dead, m.panics, m.retries)
	return m
}

// served returns how many lanes' consumers have answered after since: what is this worker's
// by right only, or of a goroutine that hangs, is not among them.
func (m *metrics) served(since time.Time) (n int) {
	for i := range m.heard {
		if m.heard[i].Load() > since.UnixNano() {
			n++
		}
	}
	return n
}

// laneMetrics are those of one lane.
type laneMetrics struct {
	*metrics
	heard  *atomic.Int64
	lag    prometheus.Gauge
	oldest prometheus.Gauge
	worked prometheus.Counter
}

func (m *metrics) lane(n int) laneMetrics {
	lane := strconv.Itoa(n)
	return laneMetrics{m, &m.heard[n], m.lag.WithLabelValues(lane), m.oldest.WithLabelValues(lane), m.worked.WithLabelValues(lane)}
}

func (m *metrics) takeOver(why string) {
	m.resets.WithLabelValues(why).Inc()
	if why == "taken over" {
		m.takeOvers.Inc()
	}
}
