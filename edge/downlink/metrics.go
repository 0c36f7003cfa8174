package downlink

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// resumeResult is what became of a join, a repair or a check.
type resumeResult int

const (
	resumedOK        resumeResult = iota // everything after the position was read
	resumedFresh                         // there was no token
	resumedMalformed                     // the token is none of ours
	resumedForeign                       // of another incarnation or shard
	resumedFuture                        // behind the stream's end: it came back from an older disk
	resumedEvicted                       // what was missed is not kept any more
	resumedTooMuch                       // more was missed than is replayed
	resumedUnread                        // the stream could not be read in time
	resumeResults
)

var resumeNames = [resumeResults]string{"resumed", "fresh", "malformed", "foreign", "future", "evicted", "too_much", "unread"}

// frameFate is what became of a live or replayed frame.
type frameFate int

const (
	frameDelivered frameFate = iota // counted for each receiver
	frameLate                       // it was known already
	frameStray                      // nobody is here for it any more
	frameForeign                    // of an incarnation that no marker has told of
	frameCore                       // it did not come through the stream
	frameFates
)

var frameNames = [frameFates]string{"delivered", "late", "stray", "foreign", "core"}

// disturbance is why all positions are proven out of turn.
type disturbance int

const (
	disturbedReconnect disturbance = iota
	disturbedLate                  // a marker was answered late
	disturbances
)

var disturbedNames = [disturbances]string{"reconnect", "late_marker"}

const (
	failedTooMany = iota
	failedNotReady
	failures
)

// event is anything else that is counted.
type event int

const (
	evBad event = iota
	evGap
	evRepaired
	evLost
	evOverflow
	evSweep
	evSweptBehind
	evEpoch
	evResync
	evStale
	evReadError
	evMarkRetry
	events
)

var eventTexts = [events]struct{ name, help string }{
	evBad:         {"bad_payloads_total", "Downlink frames that are no JSON object and were not sent."},
	evGap:         {"gaps_total", "Holes that a live frame showed in a user's frames."},
	evRepaired:    {"repaired_frames_total", "Frames that were read from the stream because they did not come live."},
	evLost:        {"lost_ranges_total", "Users whose missed frames could not be read; they are told to sync."},
	evOverflow:    {"hold_overflows_total", "Times that frames waiting for a position did not fit and were read again."},
	evSweep:       {"sweeps_total", "Sweeps over all users of a shard."},
	evSweptBehind: {"swept_behind_total", "Users that a sweep found behind the stream."},
	evEpoch:       {"epochs_total", "Times a shard's stream began anew or went back."},
	evResync:      {"resyncs_total", "Users that were told to sync."},
	evStale:       {"stale_answers_total", "Direct gets that a replica answered which was behind, and that were repeated."},
	evReadError:   {"read_errors_total", "Direct gets that failed and were repeated."},
	evMarkRetry:   {"marker_retries_total", "Markers that were not answered and were repeated."},
}

type metrics struct {
	resumes      [resumeResults]prometheus.Counter
	frames       [frameFates]prometheus.Counter
	disturbed    [disturbances]prometheus.Counter
	attachFailed [failures]prometheus.Counter
	events       [events]prometheus.Counter
	marks        prometheus.Histogram
	held         prometheus.Gauge

	users prometheus.Gauge

	mu     sync.Mutex
	perHub map[*hub]int // its share of users
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{perHub: map[*hub]int{}}
	var all []prometheus.Collector
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "wirepost_edge_downlink_" + name, Help: help})
		all = append(all, g)
		return g
	}
	vec := func(name, label, help string, values []string, out []prometheus.Counter) {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wirepost_edge_downlink_" + name, Help: help}, []string{label})
		all = append(all, v)
		for i, value := range values {
			out[i] = v.WithLabelValues(value)
		}
	}
	vec("attached_total", "result", "Receivers that were attached, by what became of their resume token.", resumeNames[:], m.resumes[:])
	vec("frames_total", "fate", "Downlink frames, by what became of them.", frameNames[:], m.frames[:])
	vec("disturbances_total", "cause", "Times at which all positions were proven out of turn, by cause.", disturbedNames[:], m.disturbed[:])
	vec("attach_failed_total", "reason", "Receivers that could not be attached, by reason.", []string{"too_many", "not_ready"}, m.attachFailed[:])
	for i, e := range eventTexts {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "wirepost_edge_downlink_" + e.name, Help: e.help})
		all = append(all, c)
		m.events[i] = c
	}
	m.marks = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "wirepost_edge_downlink_marker_seconds", Help: "Time until a marker was answered, retries included.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15},
	})
	all = append(all, m.marks)
	m.held = gauge("held_bytes", "Bytes of frames that wait for a position.")
	m.users = gauge("users", "Users who have a receiver on this edge.")
	if reg != nil {
		reg.MustRegister(all...)
	}
	return m
}

// setUsers adds the hubs' users up.
func (m *metrics) setUsers(h *hub, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.perHub[h] = n
	sum := 0
	for _, n := range m.perHub {
		sum += n
	}
	m.users.Set(float64(sum))
}
