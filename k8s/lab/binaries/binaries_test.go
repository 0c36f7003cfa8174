package binaries

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

const root = "../../.."

func gomod(t *testing.T, folder string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, folder, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestSameVersions: what is rehearsed is what k8s/test reads the manifests against, and the
// overlays name.
func TestSameVersions(t *testing.T) {
	for module, folders := range map[string][]string{
		"github.com/kedacore/keda/v2":       {"k8s/lab/versions/keda", "k8s/test"},
		"github.com/nats-io/nats-server/v2": {"scripts", "k8s/test"},
	} {
		var versions []string
		for _, folder := range folders {
			version, err := required(gomod(t, folder), module)
			if err != nil {
				t.Fatalf("%s: %v", folder, err)
			}
			versions = append(versions, version)
		}
		if len(slices.Compact(versions)) != 1 {
			t.Errorf("%s is %q in %q", module, versions, folders)
		}
	}
}

// TestProducts: each program's package is in the module of its product, which its go.mod
// names as a tool, so that go mod tidy keeps it.
func TestProducts(t *testing.T) {
	for _, p := range products {
		version, sum, err := p.version(root)
		if err != nil || version == "" || sum == "" {
			t.Fatalf("%s: %q %q %v", p.folder, version, sum, err)
		}
		f, err := modfile.Parse("go.mod", gomod(t, p.folder), nil)
		if err != nil {
			t.Fatal(err)
		}
		for program, pkg := range p.packages {
			if !strings.HasPrefix(pkg, p.module) {
				t.Errorf("%s is not of %s", program, p.module)
			}
			if p.folder != "scripts" && !slices.ContainsFunc(f.Tool, func(tool *modfile.Tool) bool { return tool.Path == pkg }) {
				t.Errorf("%s has no tool %s", p.folder, pkg)
			}
		}
	}
}

// TestStamps: the numbers of a version.
func TestStamps(t *testing.T) {
	if got := kubernetesStamps("v1.37.2"); !slices.Contains(got, "k8s.io/component-base/version.gitMinor=37") || len(got) != 6 {
		t.Errorf("%q", got)
	}
}
