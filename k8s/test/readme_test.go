package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeOverlay renders the overlay that k8s/README.md tells people to make, and asks
// of it what is asked of production.
func TestReadmeOverlay(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "# deploy/kustomization.yaml\n")
	example, _, ends := strings.Cut(example, "   ```\n")
	if !found || !ends {
		t.Fatal("k8s/README.md has no deploy/kustomization.yaml")
	}
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(repository, filepath.Join(dir, "wirepost")); err != nil {
		t.Fatal(err)
	}
	if err := place(dir, "deploy/kustomization.yaml", strings.ReplaceAll("\n"+example, "\n   ", "\n")); err != nil {
		t.Fatal(err)
	}
	built, err := render(filepath.Join(dir, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode("production", built)
	if err != nil {
		t.Fatal(err)
	}
	o.gateway = "yours"
	for check, find := range checks {
		for _, problem := range find(t, o) {
			t.Errorf("%s: %s", check, problem)
		}
	}
	for _, own := range []string{"registry.yours.example/wirepost/edge:v1.2.3", "registry.yours.example/wirepost/worker:v1.2.3",
		"gatewayClassName: yours", "hostname: chat.yours.example", "value: https://chat.yours.example"} {
		if !strings.Contains(string(built), own) {
			t.Errorf("the overlay does not lead to %q", own)
		}
	}
	for _, left := range []string{"registry.example.com", "chat.example.com", "192.0.2.1/32"} {
		if strings.Contains(string(built), left) {
			t.Errorf("%q is left of the example of production", left)
		}
	}
}
