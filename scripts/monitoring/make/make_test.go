package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/monitoring"
)

// What is made of something else is what that says today.
func TestMadeFiles(t *testing.T) {
	made, err := files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range made {
		if got, err := monitoring.Read(name); err != nil || got != string(want) {
			t.Errorf("%s is not what make monitoring writes (%v)", name, err)
		}
	}
}

var (
	name    = regexp.MustCompile(`\b(wirepost|go|process)_[a-z0-9_]+`)
	matcher = regexp.MustCompile(`([a-z_]+) *(?:=~|!=|!~|=)"`)
	by      = regexp.MustCompile(`\b(?:by|on|without|ignoring) *\(([^)]*)\)`)
)

// ofTheScrape are labels that Prometheus or a histogram adds.
var ofTheScrape = []string{"instance", "namespace", "pod", "le"}

// ofGo are the metrics of the Go runtime and the process that are used.
var ofGo = []string{"go_goroutines", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"}

// unknown returns what a query uses that docs/metrics.md does not have: a metric, or a label
// that none of the query's metrics has.
func unknown(query string, metrics map[string]monitoring.Metric) (found []string) {
	labels := slices.Clone(ofTheScrape)
	for _, used := range name.FindAllString(query, -1) {
		m, ok := metrics[used]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if h, is := metrics[strings.TrimSuffix(used, suffix)]; !ok && is && h.Type == "histogram" {
				m, ok = h, true
			}
		}
		if labels = append(labels, m.Labels...); !ok && !slices.Contains(ofGo, used) {
			found = append(found, used)
		}
	}
	var used []string
	for _, m := range matcher.FindAllStringSubmatch(query, -1) {
		used = append(used, m[1])
	}
	for _, m := range by.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			used = append(used, strings.TrimSpace(label))
		}
	}
	for _, label := range used {
		if !slices.Contains(labels, label) {
			found = append(found, "label "+label)
		}
	}
	return found
}

func documented(t *testing.T) map[string]monitoring.Metric {
	t.Helper()
	metrics, err := monitoring.Documented()
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

// Each query of the dashboard is about metrics that there are, and shows each label that its
// legend names.
func TestDashboardQueries(t *testing.T) {
	metrics, n := documented(t), 0
	for _, r := range rows {
		for _, p := range r.panels {
			for _, q := range p.queries {
				n++
				for _, what := range unknown(q.promQL(), metrics) {
					t.Errorf("%s: %s uses %s, which there is not", p.title, q.expr, what)
				}
				if !strings.Contains(q.expr, "$in") {
					t.Errorf("%s: %s is of all namespaces", p.title, q.expr)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("%d queries were looked at", n)
	}
}

// The check above finds what it looks for.
func TestUnknownIsFound(t *testing.T) {
	metrics := documented(t)
	for query, want := range map[string]string{
		`wirepost_edge_connectionz{namespace=~"x"}`:  "wirepost_edge_connectionz",
		`rate(wirepost_edge_connections_bucket[5m])`: "wirepost_edge_connections_bucket",
		`sum by (colour) (wirepost_worker_lane_lag)`: "label colour",
		`wirepost_edge_closed_total{colour="red"}`:   "label colour",
		`go_gorotines`: "go_gorotines",
		`sum by (lane) (rate(wirepost_worker_lane_messages_total[5m]))`:            "",
		`sum by (le) (rate(wirepost_worker_store_seconds_bucket[5m]))`:             "",
		`process_open_fds / process_max_fds and on (instance) wirepost_build_info`: "",
	} {
		if got := strings.Join(unknown(query, metrics), ", "); got != want {
			t.Errorf("%s: found %q, want %q", query, got, want)
		}
	}
}

// Prometheus can read each query of the dashboard: as rules, promtool parses them.
func TestPromtoolReadsTheDashboard(t *testing.T) {
	promtool := monitoring.Promtool(t)
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, r := range rows {
		for _, p := range r.panels {
			for _, q := range p.queries {
				n++
				expr := strings.NewReplacer("$namespace", ".*", "$__rate_interval", "5m").Replace(q.promQL())
				fmt.Fprintf(&b, "      - {record: \"dashboard:%d\", expr: %q}\n", n, expr)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rules found", n)) {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
