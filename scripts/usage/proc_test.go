package usage_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/usage"
)

// The PSS of a process is the sum of its parts, which the kernel names in lines of their
// own, and less than its RSS: it shares the C library with others.
func TestPSSIsTheSumOfItsParts(t *testing.T) {
	cmd := exec.Command("cat") // waits for its input
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := fmt.Fprintln(in, "up"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil { // it runs, and will change no more
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]int64{"Pss_Anon:": 0, "Pss_File:": 0, "Pss_Shmem:": 0}
	var sum int64
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if _, ok := parts[f[0]]; ok {
			var kib int64
			if _, err := fmt.Sscan(f[1], &kib); err != nil {
				t.Fatal(err)
			}
			sum += kib << 10
			delete(parts, f[0])
		}
	}
	if len(parts) != 0 {
		t.Skipf("this kernel (before 5.9) does not name the parts of PSS: %v", parts)
	}
	// Others that use the library come and go, so its share moves.
	const slack = 64 << 10
	pss, err := usage.PSS(cmd.Process.Pid)
	if err != nil || pss < sum-slack || pss > sum+slack {
		t.Errorf("PSS %d, %v; its parts make %d", pss, err, sum)
	}
	if rss, err := usage.RSS(cmd.Process.Pid); err != nil || rss < pss+512<<10 {
		t.Errorf("RSS %d, %v, with a PSS of %d", rss, err, pss)
	}
}

// CPU has the time in the kernel too: its clock and getrusage agree.
func TestCPUHasUserAndSystem(t *testing.T) {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zero.Close() }()
	var ru unix.Rusage
	buf := make([]byte, 1<<20)
	for end := time.Now().Add(10 * time.Second); time.Duration(ru.Stime.Nano()) < 200*time.Millisecond; {
		if _, err := zero.Read(buf); err != nil {
			t.Fatal(err)
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("only %v in the kernel", time.Duration(ru.Stime.Nano()))
		}
	}
	got, err := usage.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	if got < want-50*time.Millisecond || got > want+50*time.Millisecond {
		t.Errorf("CPU %v, getrusage %v", got, want)
	}
}

// RSS is what is resident now, not what once was.
func TestRSSGoesDown(t *testing.T) {
	rss := func() int64 {
		n, err := usage.RSS(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const size = 64 << 20
	before := rss()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	with := rss()
	if err := unix.Munmap(b); err != nil {
		t.Fatal(err)
	}
	if after := rss(); with-before < size/2 || with-after < size/2 {
		t.Errorf("%d bytes, with %d more %d, without them %d", before, size, with, after)
	}
}
