package manifests

import (
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"
)

// TestBuildStageRuns does what a container builder does with the first stage, in a folder:
// it copies what .dockerignore leaves and runs the commands. The binary must be static
// and know its version.
func TestBuildStageRuns(t *testing.T) {
	rules := ignored(t)
	for _, binary := range []string{"edge", "worker"} {
		src := t.TempDir()
		for _, c := range dockerfile(t, binary)[0].Commands {
			switch c := c.(type) {
			case *instructions.CopyCommand:
				for _, path := range c.SourcePaths {
					if err := copyTree(rules, path, filepath.Join(src, destination(path, c.DestPath))); err != nil {
						t.Fatal(err)
					}
				}
			case *instructions.RunCommand:
				run := exec.Command("sh", "-c", strings.Join(c.CmdLine, " "))
				run.Dir = src
				run.Env = append(os.Environ(), "VERSION=v7.8.9", "COMMIT=0123456789ab", "TARGETARCH=")
				if out, err := run.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", run.Args[2], err, out)
				}
			}
		}
		file := filepath.Join(src, "bin", binary)
		out, err := exec.Command(file, "-version").CombinedOutput()
		if want := "wirepost-" + binary + " v7.8.9 (0123456789ab, "; err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s -version says %q (%v), want %q", binary, out, err, want)
		}
		program, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s needs the libraries %q (%v), which scratch does not have", binary, libraries, err)
		}
		_ = program.Close()
	}
}

// destination is where COPY puts a source: in dest when that ends in a slash, else dest.
// A folder's content goes into dest either way.
func destination(path, dest string) string {
	if info, err := os.Stat(filepath.Join(root, path)); strings.HasSuffix(dest, "/") && err == nil && !info.IsDir() {
		return filepath.Join(dest, filepath.Base(path))
	}
	return dest
}

// copyTree copies a file or a folder of the repository, less what the rules leave out.
func copyTree(rules *patternmatcher.PatternMatcher, path, to string) error {
	return filepath.WalkDir(filepath.Join(root, path), func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if out, err := rules.MatchesOrParentMatches(name); out || err != nil || d.IsDir() {
			return err
		}
		rest, err := filepath.Rel(path, name)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
}
