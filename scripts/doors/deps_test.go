package doors

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// update writes the lists anew: make deps.
var update = flag.Bool("update", false, "write edge/deps.txt and worker/deps.txt")

const depsHeader = "# Packages that the binary links, the standard library apart. make deps writes this file, a test compares.\n"

// linked lists what a binary links, of the standard library or outside of it. GOWORK=off: a workspace would resolve the versions of all modules
// together.
func linked(t *testing.T, module, command string, standard bool) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-f", fmt.Sprintf("{{if eq .Standard %v}}{{.ImportPath}}{{end}}", standard), command)
	cmd.Dir = filepath.Join("../..", module)
	// A fixed platform: the list must not depend on where the test runs.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s in %s: %v", command, module, err)
	}
	deps := strings.Fields(string(out))
	slices.Sort(deps)
	return deps
}

func TestDeps(t *testing.T) {
	for module, never := range map[string][]string{
		"edge":   {mongo, natsServer, ferret, root + "worker", root + "scripts"},
		"worker": {natsServer, ferret, gobwas, root + "edge", root + "scripts"},
	} {
		t.Run(module, func(t *testing.T) {
			deps := linked(t, module, "./cmd/"+module, false)
			if !slices.Contains(deps, root+module) || !slices.Contains(deps, nats) {
				t.Errorf("bin/%s links neither its own module nor nats.go: this list is of nothing", module)
			}
			for _, d := range deps {
				if slices.ContainsFunc(never, func(n string) bool { return in(d, n) }) {
					t.Errorf("bin/%s must not link %s", module, d)
				}
			}
			if std := linked(t, module, "./cmd/"+module, true); !slices.Contains(std, "net") || slices.Contains(std, "testing") {
				t.Errorf("bin/%s links package testing, or the list is of nothing: %q", module, std)
			}
			file := filepath.Join("../..", module, "deps.txt")
			want := depsHeader + strings.Join(deps, "\n") + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("%s/deps.txt is not what bin/%s links; if that is meant, run make deps:\n%s", module, module, difference(string(got), want))
			}
		})
	}
}

// difference lists the lines that only one of the texts has.
func difference(got, want string) string {
	var b strings.Builder
	have, need := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, s := range have {
		if !slices.Contains(need, s) {
			b.WriteString("- " + s + "\n")
		}
	}
	for _, s := range need {
		if !slices.Contains(have, s) {
			b.WriteString("+ " + s + "\n")
		}
	}
	return b.String()
}
