// Package model_test checks the models of the protocol with spin, by check.sh. The models
// are in Promela: rules.pml says what must hold, store.pml and lane.pml are the protocol.
package model_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is many times what check.sh takes on a slow machine.
const patience = 8 * time.Minute

func TestModel(t *testing.T) {
	if race {
		t.Skip("the model checker runs no Go code: the race detector would see nothing, make test runs it")
	}
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed, and CI must have it", tool)
			}
			t.Skipf("%s is not installed; CI has it", tool)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := check(ctx, t, "check.sh")
	if err != nil {
		t.Fatalf("check.sh: %v", err)
	}
}

// TestVerdict gives check.sh a spin and a gcc that make every search say the same.
func TestVerdict(t *testing.T) {
	const good = "State-vector 8 byte, depth reached 9, errors: 0\n  1234567 states, stored\n"
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, says string // by each search; "" for no spin at all
		status     int
		want       string
	}{
		{"no spin", "", 3, "model: spin is not installed"},
		{"all is kept", good, 1, "FAIL lane.pml -DNO_RESET: finds nothing, and should find 'sender_order'"},
		{"states", good, 1, "ok   the store keeps the rules, two lanes: 1,234,567 states"},
		{"other rule", "pan:1: assertion violated once (at depth 4)\nWarning: Search not completed\nerrors: 1\n", 1,
			"FAIL lane.pml -DNO_RESET: should find 'sender_order'"},
		{"a rule broken", "pan:1: assertion violated once (at depth 4)\nWarning: Search not completed\nerrors: 1\n", 1,
			"FAIL the store keeps the rules, two lanes\n"},
		{"depth", "error: max search depth too small\n" + good, 1, "two lanes: error: max search depth too small"},
		{"memory", "pan: reached -DMEMLIM bound\nWarning: Search not completed\n" + good, 1, "two lanes: pan: reached -DMEMLIM bound"},
		{"not completed", "Warning: Search not completed\n" + good, 1, "FAIL the store keeps the rules, two lanes\n"},
		{"killed", "\n", 1, "two lanes: it did not run to its end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin := t.TempDir()
			tools := map[string]string{"spin": "#!/bin/sh\n", "gcc": "#!/bin/sh\nprintf '#!/bin/sh\\ncat %s/says\\n' \"${0%/*}\" >pan\nchmod +x pan\n", "says": tc.says}
			path := bin + ":" + os.Getenv("PATH")
			if tc.says == "" {
				delete(tools, "spin")
				path = bin + ":" + only(t, "bash", "dirname")
			}
			for name, text := range tools {
				if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := command(t.Context(), filepath.Join(dir, "check.sh"))
			cmd.Env = append(os.Environ(), "PATH="+path)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("check.sh ended with %v, want exit status %d and %q in\n%s", err, tc.status, tc.want, out)
			}
		})
	}
}

// only returns a folder with nothing but links to some tools.
func only(t *testing.T, tools ...string) string {
	dir := t.TempDir()
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// check runs a script of this folder and logs its lines as they come.
func check(ctx context.Context, t *testing.T, script string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	cmd := command(ctx, filepath.Join(dir, script))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	last := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		t.Log(last)
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	if !strings.HasPrefix(last, "model: ") || !strings.HasSuffix(last, " passed, 0 failed") {
		t.Errorf("the last line is %q", last)
	}
	return nil
}

// command runs a script as a process group, which ends with ctx as a whole. Run from
// elsewhere: the script must find its models by itself.
func command(ctx context.Context, path string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir = os.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
