package child_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/wirepost/wirepost/scripts/child"
)

// ended runs when the process has been waited for, and not when there was none.
func TestStart(t *testing.T) {
	ended := make(chan struct{})
	cmd := exec.Command("sh", "-c", "exit 3")
	if err := child.Start(cmd, func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if err := child.Start(exec.Command("/no/such/program"), func() { t.Error("it ended") }); err == nil {
		t.Error("nothing was started, and nobody says so")
	}
}

const parentEnv = "WIREPOST_TEST_CHILD_PARENT" // this process is to start a child, to tell its end, and to be killed

// A child dies with its parent, however that ends: then the pipe that it holds is closed.
func TestDiesWithItsParent(t *testing.T) {
	if os.Getenv(parentEnv) != "" {
		cmd := exec.Command("sleep", "600")
		cmd.Stdout = os.Stdout
		if err := child.Start(cmd, func() {}); err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("up")
		select {}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestDiesWithItsParent$")
	parent.Env, parent.Stdout = append(os.Environ(), parentEnv+"=1"), w
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	up := make([]byte, 2)
	if _, err := r.Read(up); err != nil || string(up) != "up" {
		t.Fatalf("%q, %v", up, err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if n, err := r.Read(up); n > 0 || err == nil { // the end, when nobody has the pipe any more
		t.Errorf("%d bytes, %v", n, err)
	}
}
