package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/monitoring"
)

// rules is what alerts.yaml holds.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// kebab is an alert's name as a heading: StoreSlow is store-slow.
func kebab(name string) string {
	return strings.ToLower(regexp.MustCompile(`(.)([A-Z])`).ReplaceAllString(name, "$1-$2"))
}

// Each alert is about metrics that there are, says what it means, and leads to a section of
// its own in docs/operations.md, where there is no other.
func TestAlerts(t *testing.T) {
	text, err := monitoring.Read("k8s/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all rules
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&all); err != nil {
		t.Fatal(err)
	}
	metrics, n := documented(t), 0
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			n++
			for _, what := range unknown(r.Expr, metrics) {
				t.Errorf("%s uses %s, which there is not", r.Alert, what)
			}
			const page = "https://github.com/wirepost/wirepost/blob/main/docs/operations.md#"
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Annotations["runbook_url"] != page+kebab(r.Alert) {
				t.Errorf("%s lacks a summary, a description, or the runbook %s", r.Alert, page+kebab(r.Alert))
			}
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s has the severity %q", r.Alert, s)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d alerts were looked at", n)
	}
}

// Each alert has its section in the operations guide.
func TestRunbook(t *testing.T) {
	alerts, err := monitoring.Read("k8s/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := monitoring.Read("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)alert: (\w+)$`).FindAllStringSubmatch(alerts, -1) {
		if !regexp.MustCompile(`(?m)^#+ ` + kebab(m[1]) + `$`).MatchString(guide) {
			t.Errorf("docs/operations.md has no section %s", kebab(m[1]))
		}
	}
}

// promtool takes the rules, their unit tests, and the scrape configuration. Debian's is built
// without the discovery of Kubernetes, so that part is left out.
func TestPromtool(t *testing.T) {
	promtool := monitoring.Promtool(t)
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "k8s", "monitoring"))); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	discovery := regexp.MustCompile(`(?m)^    kubernetes_sd_configs:\n(      .*\n)+`)
	if len(discovery.FindAll(config, -1)) != 1 {
		t.Error("prometheus.yml does not look into Kubernetes once")
	}
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), discovery.ReplaceAll(config, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}, {"check", "config", "prometheus.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
