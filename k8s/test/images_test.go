package manifests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// root is the build context: the root of the repository.
const root = "../.."

// dockerfile returns the stages of a binary's Dockerfile.
func dockerfile(t *testing.T, binary string) []instructions.Stage {
	t.Helper()
	f, err := os.Open(filepath.Join(root, binary, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	result, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range result.Warnings {
		t.Errorf("%s: %s", binary, w.Short)
	}
	stages, _, err := instructions.Parse(result.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// ignored returns the rules of .dockerignore.
func ignored(t *testing.T) *patternmatcher.PatternMatcher {
	t.Helper()
	f, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// of returns the commands of one kind in a stage.
func of[C any](s instructions.Stage) (found []C) {
	for _, c := range s.Commands {
		if c, ok := c.(C); ok {
			found = append(found, c)
		}
	}
	return found
}

// TestBuildStage: what is copied is there and not ignored; the binary is built by the
// Makefile with the image's version and commit.
func TestBuildStage(t *testing.T) {
	rules := ignored(t)
	for _, binary := range []string{"edge", "worker"} {
		stages := dockerfile(t, binary)
		if len(stages) != 2 {
			t.Fatalf("%s has %d stages, want one that builds and one that is shipped", binary, len(stages))
		}
		for _, c := range of[*instructions.CopyCommand](stages[0]) {
			for _, path := range c.SourcePaths {
				if _, err := os.Stat(filepath.Join(root, path)); err != nil {
					t.Errorf("%s copies %s: %v", binary, path, err)
				}
				if out, err := rules.MatchesOrParentMatches(path); out || err != nil {
					t.Errorf("%s copies %s, which .dockerignore leaves out (%v)", binary, path, err)
				}
			}
		}
		args := map[string]bool{}
		for _, c := range of[*instructions.ArgCommand](stages[0]) {
			args[c.Args[0].Key] = true
		}
		runs := of[*instructions.RunCommand](stages[0])
		build := strings.Join(runs[len(runs)-1].CmdLine, " ")
		want := fmt.Sprintf(`GOARCH=$TARGETARCH make build BINARIES=%s VERSION="$VERSION" COMMIT="$COMMIT"`, binary)
		if build != want || !args["VERSION"] || !args["COMMIT"] || !args["TARGETARCH"] {
			t.Errorf("%s is built by %q with the arguments %v, want %q", binary, build, args, want)
		}
	}
}

// TestMakeBuild: the Makefile's build of one binary is static, outside of the workspace,
// and hands version and commit to the variables that shared/process shows.
func TestMakeBuild(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "shared/process/version.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^var version, commit string$`).Match(source) {
		t.Fatal("shared/process has no variables version and commit")
	}
	for _, binary := range []string{"edge", "worker"} {
		cmd := exec.Command("make", "--no-print-directory", "-n", "build", "BINARIES="+binary, "VERSION=v7", "COMMIT=c0ffee")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		const process = "github.com/wirepost/wirepost/shared/process."
		for _, part := range []string{"for m in " + binary + ";", "GOWORK=off CGO_ENABLED=0 go build", "-trimpath",
			"-X " + process + "version=v7", "-X " + process + "commit=c0ffee", "-o ../bin/$m ./cmd/$m"} {
			if !strings.Contains(string(out), part) {
				t.Errorf("make build BINARIES=%s has no %q:\n%s", binary, part, out)
			}
		}
		if _, err := os.Stat(filepath.Join(root, binary, "cmd", binary, "main.go")); err != nil {
			t.Error(err)
		}
	}
}

// TestShippedStage: an image is the binary and certificates, for a user who is a number,
// with the ports that the binary's pods have.
func TestShippedStage(t *testing.T) {
	o := load(t, "production")
	for _, binary := range []string{"edge", "worker"} {
		stages := dockerfile(t, binary)
		s := stages[1]
		if s.BaseName != "scratch" {
			t.Errorf("%s is made on %s", binary, s.BaseName)
		}
		var copied []string
		for _, c := range of[*instructions.CopyCommand](s) {
			if c.From != stages[0].Name {
				t.Errorf("%s copies from %q", binary, c.From)
			}
			copied = append(copied, c.SourcePaths[0]+" "+c.DestPath)
		}
		if want := []string{"/etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/", "/src/bin/" + binary + " /" + binary}; !slices.Equal(copied, want) {
			t.Errorf("%s copies %q, want %q", binary, copied, want)
		}
		if users := of[*instructions.UserCommand](s); len(users) != 1 || !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(users[0].User) {
			t.Errorf("%s runs as %v", binary, users)
		}
		if e := of[*instructions.EntrypointCommand](s); len(e) != 1 || e[0].PrependShell || !slices.Equal(e[0].CmdLine, []string{"/" + binary}) {
			t.Errorf("%s starts %v", binary, e)
		}
		w, _ := o.workload(binary)
		var want, got []string
		for _, p := range w.container().Ports {
			want = append(want, fmt.Sprint(p.ContainerPort))
		}
		for _, c := range of[*instructions.ExposeCommand](s) {
			got = append(got, c.Ports...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s exposes %q, its pods %q", binary, got, want)
		}
		labels := map[string]string{}
		for _, c := range of[*instructions.LabelCommand](s) {
			for _, l := range c.Labels {
				labels[l.Key] = strings.Trim(l.Value, `"`)
			}
		}
		if labels["org.opencontainers.image.version"] != "$VERSION" || labels["org.opencontainers.image.revision"] != "$COMMIT" {
			t.Errorf("%s has the labels %v", binary, labels)
		}
	}
}

// TestIgnored: what must never be in an image's context is not.
func TestIgnored(t *testing.T) {
	rules := ignored(t)
	for _, path := range []string{".git/config", ".cache/mongod", ".data/dev/secret", "bin/edge", "k8s/overlays/production/secrets/edge/nkey.seed",
		"scripts/dev/main.go", "edge/config_test.go", "edge/socket/testdata/fuzz/FuzzJSON/x", "go.work"} {
		if out, err := rules.MatchesOrParentMatches(path); !out || err != nil {
			t.Errorf("%s is sent to the builder (%v)", path, err)
		}
	}
	for _, path := range []string{"edge/cmd/edge/main.go", "worker/lane/lane.go", "shared/go.sum", "Makefile"} {
		if out, err := rules.MatchesOrParentMatches(path); out || err != nil {
			t.Errorf("%s is left out (%v)", path, err)
		}
	}
}
