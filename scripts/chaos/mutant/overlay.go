package mutant

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed patches/*.patch
var patches embed.FS

// ErrStale is returned when a patch no longer fits the production code. The error that
// wraps it names the patch and the place.
var ErrStale = errors.New("it no longer applies to the code")

const renew = "make the change by hand in the production file, then: git diff > scripts/chaos/mutant/patches/%[1]s.patch && git checkout <file>"

// Overlay applies the named patches, one after the other, to copies of the files that
// they touch. root is the checkout and is only read; dir takes the copies, under their
// relative paths, and the file overlay.json, whose path is returned: it is what
// `go build -overlay` wants, run in root. dir is created, and belongs to one call: what
// an earlier one has left there would be patched twice. Names are those of All, and
// Killer. A patch that does not fit gives ErrStale.
func Overlay(root, dir string, names ...string) (file string, err error) {
	if root, err = filepath.Abs(root); err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the overlay's folder: %w", err)
	}
	if dir, err = filepath.Abs(dir); err == nil {
		dir, err = filepath.EvalSymlinks(dir) // git compares real paths with its ceiling
	}
	if err != nil {
		return "", fmt.Errorf("find the overlay's folder: %w", err)
	}
	replace := map[string]string{}
	for _, name := range names {
		patch, err := patches.ReadFile("patches/" + name + ".patch")
		if err != nil {
			return "", fmt.Errorf("there is no mutant %q", name)
		}
		for _, path := range touched(patch) {
			from, to := filepath.Join(root, path), filepath.Join(dir, path)
			if _, done := replace[from]; done {
				continue
			}
			if err := copyFile(from, to); err != nil {
				return "", fmt.Errorf("patch %s wants %s: %w: %w; "+renew, name, path, ErrStale, err)
			}
			replace[from] = to
		}
		if err := apply(dir, name, patch); err != nil {
			return "", err
		}
	}
	file = filepath.Join(dir, "overlay.json")
	data, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	return file, nil
}

// touched returns the paths of a patch, relative to the checkout. Only a file's heading
// begins with "diff": each line of a hunk begins with a blank, a sign or a backslash.
func touched(patch []byte) []string {
	var paths []string
	for line := range strings.Lines(string(patch)) {
		if rest, ok := strings.CutPrefix(line, "diff --git a/"); ok {
			path, _, _ := strings.Cut(rest, " b/")
			paths = append(paths, filepath.FromSlash(path))
		}
	}
	return paths
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// apply lets git patch the copies in dir. git takes a hunk elsewhere in the file, but
// never with other lines around it. Inside of a repository it would take the paths as
// relative to that repository, and skip them without a word: so it is kept from finding
// one, and from the user's configuration.
func apply(dir, name string, patch []byte) error {
	cmd := exec.Command("git", "apply", "--whitespace=nowarn", "-")
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(patch)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GIT_") }),
		"GIT_CEILING_DIRECTORIES="+filepath.Dir(dir), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("patch %s: %w: %s; "+renew, name, ErrStale, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", "))
	}
	if err != nil {
		return fmt.Errorf("apply patch %s: %w", name, err)
	}
	return nil
}
