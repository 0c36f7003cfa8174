package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var errStatus = errors.New("no VmRSS in /proc")

// CPU returns the CPU time of all threads of a process, ended ones included, user and
// system together, in nanoseconds: the kernel's own sum, not the ticks of /proc.
func CPU(pid int) (time.Duration, error) {
	// The clock of a process: see clock_getcpuclockid(3). 2 is CPUCLOCK_SCHED.
	clock := int32(^pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("cpu clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS returns the resident memory of a process, in bytes: VmRSS, which counts pages of
// files and of shared memory too.
func RSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errStatus
}

// Meter reads the CPU time of processes over a span.
type Meter struct {
	pids  []int
	start []time.Duration
	began time.Time
}

// NewMeter starts a span.
func NewMeter(all ...*Process) (*Meter, error) {
	m := &Meter{began: time.Now()}
	for _, p := range all {
		c, err := CPU(p.PID)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		m.pids, m.start = append(m.pids, p.PID), append(m.start, c)
	}
	return m, nil
}

// Read returns what each process has used since the start, in their order, and how long
// ago that is.
func (m *Meter) Read() (used []time.Duration, span time.Duration, err error) {
	for i, pid := range m.pids {
		c, err := CPU(pid)
		if err != nil {
			return nil, 0, err
		}
		used = append(used, c-m.start[i])
	}
	return used, time.Since(m.began), nil
}
