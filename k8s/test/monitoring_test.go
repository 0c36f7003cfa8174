package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestMonitoring renders k8s/monitoring and compares it with the pods of production: what is
// scraped, by which labels, and whether Prometheus without the operator finds the same.
func TestMonitoring(t *testing.T) {
	text, err := render("../monitoring")
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode("monitoring", text)
	if err != nil {
		t.Fatal(err)
	}
	production := load(t, "production")
	for _, name := range []string{"edge", "worker"} {
		w, _ := production.workload(name)
		m, ok := named[*monitoring.PodMonitor](o, name)
		if !ok || m.Namespace != namespace || !selects(&m.Spec.Selector, w) || len(m.Spec.PodMetricsEndpoints) != 1 {
			t.Errorf("nothing scrapes %s", name)
			continue
		}
		end := m.Spec.PodMetricsEndpoints[0]
		port, ok := containerPort(w, *end.Port)
		if notes := w.template.Annotations; !ok || end.Path != notes["prometheus.io/path"] || notes["prometheus.io/scrape"] != "true" {
			t.Errorf("%s is scraped at %s %s, its annotations say %v", name, *end.Port, end.Path, notes)
		} else if p, _ := containerPort(w, notes["prometheus.io/port"]); p != port {
			t.Errorf("%s is scraped at port %d, its annotations say %s", name, port, notes["prometheus.io/port"])
		}
		for _, other := range production.pods {
			if other.GetName() != name && selects(&m.Spec.Selector, other) {
				t.Errorf("what is to scrape %s scrapes %s", name, other.GetName())
			}
		}
	}
	rules, ok := named[*monitoring.PrometheusRule](o, "wirepost")
	if !ok || len(rules.Spec.Groups) < 3 {
		t.Error("there are no rules")
	}
	edge, _ := production.workload("edge")
	if full := fmt.Sprintf("wirepost_edge_connections > %d", sockets(edge)); !strings.Contains(string(text), "expr: "+full+"\n") {
		t.Errorf("no alert has %s, what a pod is made for", full)
	}
	dash, ok := named[*corev1.ConfigMap](o, "wirepost-dashboard")
	if !ok || dash.Labels["grafana_dashboard"] == "" || !json.Valid([]byte(dash.Data["wirepost.json"])) {
		t.Error("Grafana finds no dashboard")
	}
}

// TestPrometheusDiscovery: the configuration for a Prometheus without the operator looks for
// what the pods say, and gives series the labels by which edges are scaled.
func TestPrometheusDiscovery(t *testing.T) {
	text, err := os.ReadFile("../monitoring/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Jobs []struct {
			Discovery []struct {
				Role       string
				Namespaces struct{ Names []string }
			} `json:"kubernetes_sd_configs"`
			Relabel []struct {
				Sources []string `json:"source_labels"`
				Target  string   `json:"target_label"`
			} `json:"relabel_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Jobs) != 1 || len(config.Jobs[0].Discovery) != 1 || config.Jobs[0].Discovery[0].Role != "pod" ||
		!slices.Equal(config.Jobs[0].Discovery[0].Namespaces.Names, []string{namespace}) {
		t.Fatalf("it looks for %+v", config.Jobs)
	}
	var sources, targets []string
	for _, r := range config.Jobs[0].Relabel {
		sources, targets = append(sources, r.Sources...), append(targets, r.Target)
	}
	pod, _ := load(t, "production").workload("edge")
	for note := range pod.template.Annotations {
		if name := "__meta_kubernetes_pod_annotation_" + strings.NewReplacer(".", "_", "/", "_").Replace(note); strings.HasPrefix(note, "prometheus.io/") && !slices.Contains(sources, name) {
			t.Errorf("it does not look at the annotation %s", note)
		}
	}
	for _, label := range []string{"namespace", "pod", "__address__", "__metrics_path__"} {
		if !slices.Contains(targets, label) {
			t.Errorf("it does not set %s", label)
		}
	}
}
