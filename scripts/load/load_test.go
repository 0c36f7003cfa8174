package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/standin"
)

// TestMain makes this test program an agent when crew starts it as one, and a gateway
// when a test does.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == crew.Argument:
		os.Exit(beAgent())
	case len(os.Args) == 4 && os.Args[1] == gateway:
		os.Exit(beGateway(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

const gateway = "gateway"

// beGateway is a stand-in as a process, which can be killed. Its id goes to a file.
func beGateway(addr, pidFile string) int {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		err = os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err == nil {
		err = http.Serve(l, standin.New(nil))
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

const secret = "0123456789abcdef0123456789abcdef"

// load runs the command and returns its exit code, its JSON, and what it printed.
func load(t *testing.T, args ...string) (code int, r map[string]any, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "result.json")
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code = run(ctx, append(args, "-json", file), secret, &out, &out)
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
	}
	return code, r, out.String()
}

func count(r map[string]any, name string) int {
	counts, _ := r["counts"].(map[string]any)
	n, _ := counts[name].(float64)
	return int(n)
}

// A gateway that loses one message of many is found out.
func TestExitCodeTellsOfOneLostMessage(t *testing.T) {
	for _, c := range []struct {
		fault standin.Fault
		code  int
		text  string
	}{
		{standin.None, 0, "nothing was lost"},
		{standin.LoseCopy, exitLost, "FAILED: 1 copies"},
		{standin.LoseAll, exitLost, "FAILED: 1 messages were neither"},
		{standin.Refuse, exitLost, "FAILED: 1 messages were refused"},
	} {
		g := standin.Start(t, func(n int) standin.Fault {
			if n == 100 {
				return c.fault
			}
			return standin.None
		})
		code, r, text := load(t, "-url", g.URL, "-mode", "chat", "-n", "20", "-processes", "2", "-messages", "500", "-duration", "1s", "-grace", "2s")
		if code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("fault %d: exit code %d, want %d with %q:\n%s", c.fault, code, c.code, c.text, text)
		}
		if sent := count(r, "sent"); sent < 400 || r["client_processes"].(float64) != 2 {
			t.Errorf("fault %d: %d sent, %v", c.fault, sent, r["client_processes"])
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range []string{
		"-mode x", "-n 0", "-size 10", "-plot a.gif", "-mode fanout -devices 40", "-token-file /none", "-steps a",
		"-mode reconnect -url ws://127.0.0.1:1/", "extra", "-pids a=b", "-n 100000 -processes 1 -url ws://127.0.0.1:1/",
	} {
		if code, _, text := load(t, strings.Fields(args)...); code != exitUsage {
			t.Errorf("%s: exit code %d:\n%s", args, code, text)
		}
	}
}

// An address where nobody is, is said, and not waited for without end.
func TestTargetThatIsNoGateway(t *testing.T) {
	code, _, text := load(t, "-url", "wss://127.0.0.1:1/", "-n", "1", "-mode", "connect")
	if code != exitBroke || !strings.Contains(text, "wss is not supported") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

// The edges of a gateway by URL are killed: those that the tool has started itself, and
// those that somebody else starts again.
func TestReconnectByURL(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr, pidFile := l.Addr().String(), filepath.Join(t.TempDir(), "pid")
		_ = l.Close()
		command := fmt.Sprintf("%s %s %s %s", exe, gateway, addr, pidFile)
		args := []string{"-mode", "reconnect", "-url", "ws://" + addr + "/ws", "-n", "10", "-messages", "50", "-duration", "2s"}
		if own {
			args = append(args, "-edge", command)
		} else {
			args = append(args, "-kill-pids", supervise(t, command, pidFile))
		}
		code, r, text := load(t, args...)
		if code != 0 || count(r, "resumed") != 10 || count(r, "dropped") != 10 || count(r, "missing") != 0 {
			t.Errorf("exit code %d, counts %v:\n%s", code, r["counts"], text)
		}
	}
}

// supervise runs a gateway until the test's end, again whenever it ends, and returns the
// id of its first process.
func supervise(t *testing.T, command, pidFile string) (pid string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "while :; do "+command+"; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the gateway too
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(pidFile); err == nil && len(b) > 0 {
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not start")
		}
	}
}

// programs builds what an own system consists of.
func programs(t *testing.T) (bin string) {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin = t.TempDir()
	if _, err := fleet.Build(t.Context(), root, bin, fleet.BuildOptions{Ferret: true}); err != nil {
		t.Fatal(err)
	}
	return bin
}

// Each mode against a real system: what was due is acknowledged and delivered.
func TestModesAgainstARealSystem(t *testing.T) {
	bin := programs(t)
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		mode      string
		n         int
		delivered int // for each message
		args      string
	}{
		{"connect", 100, 0, ""},
		{"idle", 100, 0, "-steps 50 -settle 500ms"},
		{"echo-self", 100, 0, ""},
		{"chat", 100, 1, "-processes 2"},
		{"fanout", 102, 16, ""},
		{"reconnect", 100, 1, "-duration 4s"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			args := append([]string{"-mode", c.mode, "-n", strconv.Itoa(c.n), "-bin", bin, "-messages", "200", "-duration", "2s",
				"-plot", filepath.Join(t.TempDir(), "chart.svg")}, strings.Fields(c.args)...)
			code, r, text := load(t, args...)
			if code != 0 {
				t.Fatalf("exit code %d:\n%s", code, text)
			}
			sent := count(r, "sent")
			if count(r, "acknowledged") != sent || count(r, "delivered") != c.delivered*sent || count(r, "logins") < c.n {
				t.Errorf("counts %v", r["counts"])
			}
			if sends := c.mode != "connect" && c.mode != "idle"; sends && sent < 300 || !sends && sent != 0 {
				t.Errorf("%d messages were sent", sent)
			}
			if c.mode == "reconnect" && (count(r, "dropped") != c.n || count(r, "resumed") != c.n) {
				t.Errorf("counts %v", r["counts"])
			}
			if c.mode == "idle" && len(r["memory"].([]any)) != 2 {
				t.Errorf("memory %v", r["memory"])
			}
			if !strings.Contains(text, "nothing was lost") {
				t.Errorf("the table:\n%s", text)
			}
		})
	}
}
