package e2e

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/monitoring"
)

// page is /metrics of a process, as it is sent.
func (p *process) page() []byte {
	p.t.Helper()
	res, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	return b
}

// families are the metrics of a process by name.
func (p *process) families() map[string]*dto.MetricFamily {
	p.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(p.page()))
	if err != nil {
		p.t.Fatalf("metrics of %s: %v", p.name, err)
	}
	return all
}

// shown is the sum over all processes of the values of a metric, a histogram's being its
// count; series is its name, and behind it in braces the labels that count.
func (s *system) shown(series string) (sum float64) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for _, p := range slices.Concat(s.edges, s.workers) {
		family := p.families()[name]
		for _, m := range family.GetMetric() {
			if has(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// has reports whether a series has the labels, written name=value and separated by commas.
func has(m *dto.Metric, labels string) bool {
	for label := range strings.SplitSeq(labels, ",") {
		name, value, _ := strings.Cut(label, "=")
		if name != "" && !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == name && l.GetValue() == value }) {
			return false
		}
	}
	return true
}

// step is something that happens, and what moves then.
type step struct {
	what  string
	do    func()
	moves []string
}

// still are metrics that the steps of TestMetrics do not move: a test that does, which names
// it, or what it would take.
var still = map[string]string{
	"wirepost_edge_handshakes_in_clear_total":                "edge/socket/client_test.go",
	"wirepost_build_info":                                    "shared/admin/admin_test.go",
	"wirepost_edge_accept_failures_total":                    "scripts/attacks/admission_test.go",
	"wirepost_edge_lost_events_total":                        "edge/socket/server_test.go",
	"wirepost_edge_uplink_late_acks_total":                   "takes an acknowledgement behind a timeout of 2 s",
	"wirepost_edge_memory_limit_bytes":                       "scripts/attacks/admission_test.go",
	"wirepost_edge_downlink_attach_failed_total":             "takes 15 s without a marker",
	"wirepost_edge_downlink_gaps_total":                      "scripts/itest/downlink/loss_test.go",
	"wirepost_edge_downlink_repaired_frames_total":           "scripts/itest/downlink/slow_test.go",
	"wirepost_edge_downlink_lost_ranges_total":               "scripts/itest/downlink/loss_test.go",
	"wirepost_edge_downlink_hold_overflows_total":            "takes a user's 256 frames during one login",
	"wirepost_edge_downlink_held_bytes":                      "is above 0 for moments only",
	"wirepost_edge_downlink_swept_behind_total":              "scripts/itest/downlink/cluster_test.go",
	"wirepost_edge_downlink_stale_answers_total":             "scripts/itest/downlink/cluster_test.go",
	"wirepost_edge_downlink_read_errors_total":               "takes a stream that goes during a read",
	"wirepost_edge_nats_certificate_end_timestamp_seconds":   "scripts/itest/natsconn/metrics_test.go",
	"wirepost_worker_nats_certificate_end_timestamp_seconds": "scripts/itest/natsconn/metrics_test.go",
	"wirepost_worker_streams_complete":                       "scripts/itest/streams/keeper_test.go",
	"wirepost_worker_lane_skipped_total":                     "scripts/itest/lane/incarnation_test.go",
	"wirepost_worker_lane_panics_total":                      "takes a bug",
	"wirepost_worker_lanes_owned":                            "scripts/itest/lane/share_test.go",
	"wirepost_worker_query_panics_total":                     "takes a bug",
	"wirepost_worker_queries_busy_total":                     "takes five slow queries of one user at once",
	"wirepost_worker_replies_lost_total":                     "takes a reconnect in the middle of a query",
	"wirepost_worker_sessions_dropped_total":                 "takes an edge that is dead for a minute",
	"wirepost_worker_store_conflicts_total":                  "takes two workers at one lane",
	"wirepost_worker_store_hints_lost_total":                 "takes a store that fails between a batch and its hint",
	"wirepost_worker_downlink_retries_total":                 "takes a shard that goes in the middle of a batch",
	"wirepost_worker_downlink_too_large_total":               "takes a max_payload below MAX_FRAME",
}

// Each metric of docs/metrics.md is there, as the document says, and no other is; each moves
// when what it counts happens.
func TestMetrics(t *testing.T) {
	s, steps := newMetricScenario(t)
	unmoved := map[string]bool{}
	documented, err := monitoring.Documented()
	if err != nil {
		t.Fatal(err)
	}
	for name := range documented {
		unmoved[name] = true
	}
	for _, step := range steps {
		before := map[string]float64{}
		for _, series := range step.moves {
			before[series] = s.shown(series)
		}
		step.do()
		for _, series := range step.moves {
			eventually(t, 30*time.Second, step.what+": "+series+" moves", func() bool { return s.shown(series) != before[series] })
			name, _, _ := strings.Cut(series, "{")
			delete(unmoved, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unmoved)) {
		switch why := still[name]; {
		case why == "":
			t.Errorf("%s did not move", name)
		case strings.HasSuffix(why, "_test.go"):
			text, err := monitoring.Read(why)
			if tail := name[strings.Index(name, "_")+1:]; err != nil || !mentions(text, tail) {
				t.Errorf("%s is said to move in %s, which does not mention it (%v)", name, why, err)
			}
		}
		delete(unmoved, name)
	}
	checkDocumented(t, s, documented)
	lint(t, s)
}

// mentions reports whether a text holds a metric's name, or the end of it from some word on.
func mentions(text, name string) bool {
	for {
		if strings.Contains(text, name) {
			return true
		}
		_, rest, more := strings.Cut(name, "_")
		if !more || strings.Count(rest, "_") < 1 {
			return false
		}
		name = rest
	}
}

// checkDocumented compares the processes' metrics with the document, in both directions.
func checkDocumented(t *testing.T, s *system, documented map[string]monitoring.Metric) {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range slices.Concat(s.edges, s.workers) {
		for name, f := range p.families() {
			if !strings.HasPrefix(name, "wirepost_") {
				continue
			}
			seen[name] = true
			want, ok := documented[name]
			if !ok {
				t.Errorf("docs/metrics.md does not have %s of %s", name, p.name)
				continue
			}
			if kind := strings.ToLower(f.GetType().String()); kind != want.Type || f.GetHelp() == "" {
				t.Errorf("%s is a %s with the help %q, the document says %s", name, kind, f.GetHelp(), want.Type)
			}
			for _, m := range f.GetMetric() {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetName())
				}
				if slices.Sort(labels); !slices.Equal(labels, slices.Sorted(slices.Values(want.Labels))) {
					t.Errorf("%s has the labels %q, the document says %q", name, labels, want.Labels)
				}
			}
		}
	}
	for name := range documented {
		if !seen[name] {
			t.Errorf("neither edge nor worker has %s of docs/metrics.md", name)
		}
	}
}

// lint lets promtool read what an edge and a worker show.
func lint(t *testing.T, s *system) {
	t.Helper()
	promtool := monitoring.Promtool(t)
	for _, p := range []*process{s.edges[0], s.workers[0]} {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = bytes.NewReader(p.page())
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool says of %s: %v\n%s", p.name, err, out)
		}
	}
}

// TestStillExists: each test that is said to move a metric is there.
func TestStillExists(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	for name, why := range still {
		if !strings.HasSuffix(why, "_test.go") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, why)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
