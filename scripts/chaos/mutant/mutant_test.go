package mutant

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// names returns all patches that the table speaks of.
func names() []string {
	all := []string{Killer}
	for _, m := range All() {
		all = append(all, m.Name)
	}
	return all
}

func TestTableAndPatchesAgree(t *testing.T) {
	files, err := fs.Glob(patches, "patches/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, f := range files {
		there = append(there, strings.TrimSuffix(filepath.Base(f), ".patch"))
	}
	want := names()
	slices.Sort(want)
	if slices.Sort(there); !slices.Equal(there, want) {
		t.Errorf("patches %v, the table has %v", there, want)
	}
	for _, m := range All() {
		if m.Rule == "" || m.Binary != edge && m.Binary != worker {
			t.Errorf("%+v: no rule or no binary", m)
		}
		patch, err := patches.ReadFile("patches/" + m.Name + ".patch")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range touched(patch) {
			if !strings.HasPrefix(path, m.Binary+"/") {
				t.Errorf("%s changes %s, which is not the %s's", m.Name, path, m.Binary)
			}
		}
	}
	killer, err := patches.ReadFile("patches/" + Killer + ".patch")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(killer, []byte(`"`+KillerPhrase+`"`)) {
		t.Errorf("the killer's patch does not look for %q", KillerPhrase)
	}
}

// TestEachApplies keeps the table: every patch fits today's code, and what comes out
// compiles, with all that uses it.
func TestEachApplies(t *testing.T) {
	binary := map[string]string{Killer: worker}
	for _, m := range All() {
		binary[m.Name] = m.Binary
	}
	for _, name := range names() {
		file, err := Overlay(root, t.TempDir(), name)
		if err != nil {
			t.Error(err)
			continue
		}
		for from, to := range replaced(t, file) {
			if bytes.Equal(read(t, from), read(t, to)) {
				t.Errorf("%s leaves %s as it is", name, from)
			}
		}
		build := exec.Command("go", "build", "-buildvcs=false", "-overlay", file, "./"+binary[name])
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("%s does not compile: %v\n%s", name, err, out)
		}
	}
}

// TestOverlayOfSeveral: patches of one build are applied one after the other, wherever
// the overlay lies, and the checkout stays as it is.
func TestOverlayOfSeveral(t *testing.T) {
	repository := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", repository).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	for where, dir := range map[string]string{
		"no repository": filepath.Join(t.TempDir(), "new"),
		"a repository":  filepath.Join(repository, "deep", "below"),
	} {
		checkout := excerpt(t, "killer", "uplink-ack-early", "no-unique-key")
		before := contents(t, checkout)
		file, err := Overlay(checkout, dir, "killer", "uplink-ack-early", "no-unique-key")
		if err != nil {
			t.Fatalf("overlay in %s: %v", where, err)
		}
		if after := contents(t, checkout); !maps.Equal(before, after) {
			t.Errorf("overlay in %s changed the checkout", where)
		}
		got := replaced(t, file)
		if len(got) != len(before) {
			t.Errorf("overlay in %s replaces %v, want the %d files that are touched", where, got, len(before))
		}
		for from, to := range got {
			if !filepath.IsAbs(from) || bytes.Equal(read(t, from), read(t, to)) {
				t.Errorf("overlay in %s: %s is not patched", where, from)
			}
		}
	}
}

// TestStalePatch: who changed the code reads which patch is stale, where, and what to do.
func TestStalePatch(t *testing.T) {
	const file = "worker/mongostore/schema.go"
	for what, spoil := range map[string]func(t *testing.T, path string){
		"another line": func(t *testing.T, path string) {
			code := bytes.Replace(read(t, path), []byte("SetUnique(true),"), []byte("SetUnique(!false),"), 1)
			if err := os.WriteFile(path, code, 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"no such file": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		checkout := excerpt(t, "no-unique-key")
		if _, err := Overlay(checkout, t.TempDir(), "no-unique-key"); err != nil {
			t.Fatalf("before the change: %v", err)
		}
		spoil(t, filepath.Join(checkout, file))
		_, err := Overlay(checkout, t.TempDir(), "no-unique-key")
		if !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v, want ErrStale", what, err)
			continue
		}
		for _, part := range []string{"no-unique-key", file, "git diff > scripts/chaos/mutant/patches/no-unique-key.patch"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error does not say %q: %v", what, part, err)
			}
		}
	}
	if _, err := Overlay(root, t.TempDir(), "never-written"); err == nil || errors.Is(err, ErrStale) {
		t.Errorf("an unknown mutant: %v", err)
	}
}

// TestMovedCode: lines that were added elsewhere do no harm.
func TestMovedCode(t *testing.T) {
	checkout := excerpt(t, "no-unique-key")
	path := filepath.Join(checkout, "worker/mongostore/schema.go")
	if err := os.WriteFile(path, append([]byte("// One more line.\n\n"), read(t, path)...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Overlay(checkout, t.TempDir(), "no-unique-key"); err != nil {
		t.Error(err)
	}
}

// excerpt is a checkout that holds the files of some patches and no other.
func excerpt(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		patch, err := patches.ReadFile("patches/" + name + ".patch")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range touched(patch) {
			if err := copyFile(filepath.Join(root, path), filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all[path] = string(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func replaced(t *testing.T, file string) map[string]string {
	t.Helper()
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(read(t, file), &overlay); err != nil {
		t.Fatal(err)
	}
	if len(overlay.Replace) == 0 {
		t.Fatalf("%s replaces nothing", file)
	}
	return overlay.Replace
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
