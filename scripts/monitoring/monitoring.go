// Package monitoring reads docs/metrics.md, the one list of metrics that dashboard, alerts
// and the binaries are held against, and finds promtool. It knows no binary.
package monitoring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/checkout"
)

// Metric is a row of docs/metrics.md.
type Metric struct {
	Name, Type string
	Labels     []string // in the order of the table
}

var (
	row  = regexp.MustCompile("(?m)^\\| `(wirepost_[a-z0-9_]+)` \\| (\\w+) \\|([^|]*)\\|([^|]*)\\|([^|]*)\\|$")
	code = regexp.MustCompile("`([a-z_]+)`")
)

// Documented returns the metrics of docs/metrics.md by name.
func Documented() (map[string]Metric, error) {
	text, err := Read("docs/metrics.md")
	if err != nil {
		return nil, err
	}
	all := map[string]Metric{}
	for _, cell := range row.FindAllStringSubmatch(text, -1) {
		m := Metric{Name: cell[1], Type: cell[2]}
		for _, label := range code.FindAllStringSubmatch(cell[3], -1) {
			m.Labels = append(m.Labels, label[1])
		}
		if _, twice := all[m.Name]; twice {
			return nil, fmt.Errorf("docs/metrics.md has %s twice", m.Name)
		}
		if strings.TrimSpace(cell[4]) == "" {
			return nil, fmt.Errorf("docs/metrics.md does not say what %s tells", m.Name)
		}
		all[m.Name] = m
	}
	if rows := strings.Count(text, "\n| `wirepost_"); rows != len(all) {
		return nil, fmt.Errorf("%d of the %d rows of docs/metrics.md can be read", len(all), rows)
	}
	return all, nil
}

// Read returns a file of the repository.
func Read(name string) (string, error) {
	root, err := checkout.Root()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, name))
	return string(text), err
}

// Promtool returns the path of promtool. Without it the test is skipped, but in CI, which
// installs it, it fails.
func Promtool(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("promtool is not installed (apt-get install prometheus); CI has it")
	}
	return path
}
