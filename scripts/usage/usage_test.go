package usage_test

import (
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/usage"
)

// burn uses CPU and memory that the meter must see.
func burn(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 64<<20)
	x := byte(1)
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		for i := range b {
			x = x*7 + 3
			b[i] = x
		}
	}
	return b
}

func TestMeterSeesThisProcess(t *testing.T) {
	m := usage.NewMeter(func() []usage.Group { return []usage.Group{{Name: "me", PIDs: []int{os.Getpid()}}} })
	debug.FreeOSMemory() // what another test left would be used again, and nothing grow
	before := m.Sample(true)[0]
	b := burn(t)
	after := m.Sample(true)[0]
	if d := after.CPU - before.CPU; d < 100*time.Millisecond || d > 10*time.Second {
		t.Errorf("CPU grew by %v", d)
	}
	for what, d := range map[string]int64{"RSS": after.RSS - before.RSS, "PSS": after.PSS - before.PSS} {
		if d < int64(len(b))*9/10 || d > 5*int64(len(b)) { // the race detector has its own
			t.Errorf("%s grew by %d of %d bytes", what, d, len(b))
		}
	}
	if after.Processes != 1 || before.CPU > time.Second {
		t.Errorf("%+v, %+v", before, after)
	}
}

// The CPU time of a process that was seen stays when it is gone, and who comes later
// counts from zero.
func TestMeterKeepsTheTimeOfTheDead(t *testing.T) {
	var pids []int
	m := usage.NewMeter(func() []usage.Group { return []usage.Group{{Name: "g", PIDs: pids}} })
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids = []int{cmd.Process.Pid}
	var last time.Duration
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		u := m.Sample(false)[0]
		if u.CPU >= 50*time.Millisecond && u.CPU == last {
			break // it has burnt what it had to, and waits
		}
		last = u.CPU
		if time.Now().After(deadline) {
			t.Fatalf("use %+v", u)
		}
	}
	_ = in.Close()
	_ = cmd.Wait()
	if u := m.Sample(false)[0]; u.CPU != last || u.Processes != 0 || u.RSS != 0 {
		t.Errorf("use of the dead %+v, CPU was %v", u, last)
	}
}
