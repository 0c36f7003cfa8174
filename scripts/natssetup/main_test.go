package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	for _, args := range [][]string{{"init"}, {"certificate"}, {"rotate", "edge"}, {"retire", "edge"}} {
		if err := run(append([]string{"-dir", dir, "-hosts", "nats.example"}, args...), &out); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	seed, err := os.ReadFile(filepath.Join(dir, "edge", "nkey.seed"))
	if err != nil || strings.Contains(out.String(), strings.TrimSpace(string(seed))) {
		t.Errorf("a seed is shown, or there is none: %v\n%s", err, out.String())
	}
	for _, args := range [][]string{nil, {"init", "edge"}, {"rotate"}, {"destroy"}} {
		if err := run(append([]string{"-dir", dir}, args...), &out); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
