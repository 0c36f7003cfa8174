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

// TestModelFails shows that check.sh fails when the models break a rule, and when they
// are not even read.
func TestModelFails(t *testing.T) {
	if race {
		t.Skip("runs no Go code under test, see TestModel")
	}
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, see TestModel", tool)
		}
	}
	dir := t.TempDir()
	script, err := os.ReadFile("check.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "check.sh"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, tc := range []struct{ name, model string }{
		{"no rule is ever broken", "init { skip }\n"},
		{"every run breaks one", "bool once;\ninit { assert(once) }\n"},
		{"no Promela", "this is no model\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{"store.pml", "lane.pml"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(tc.model), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := command(ctx, filepath.Join(dir, "check.sh"))
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("check.sh ended with %v, want exit status 1\n%s", err, out)
			}
		})
	}
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
