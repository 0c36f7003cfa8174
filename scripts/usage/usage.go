// Package usage asks the kernel what processes use: resident memory, their share of shared
// memory, and CPU time.
package usage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is processes that are added up, such as all edges.
type Group struct {
	Name string
	PIDs []int
}

// Use is what a group uses.
type Use struct {
	Group     string        `json:"group"`
	Processes int           `json:"processes"`
	RSS       int64         `json:"rss"`           // bytes
	PSS       int64         `json:"pss,omitempty"` // bytes; 0: not asked for, or not allowed to know
	CPU       time.Duration `json:"cpu_ns"`        // since the Meter began
}

// Meter adds up the CPU time of groups whose processes come and go.
type Meter struct {
	groups func() []Group
	base   map[int]time.Duration            // of processes that ran when the Meter began
	seen   map[string]map[int]time.Duration // the last figure of each process of a group
}

// NewMeter begins to measure. groups is asked at each sample; who is new then began at 0.
func NewMeter(groups func() []Group) *Meter {
	m := &Meter{groups: groups, base: map[int]time.Duration{}, seen: map[string]map[int]time.Duration{}}
	for _, g := range groups() {
		for _, pid := range g.PIDs {
			m.base[pid], _ = CPU(pid) // one that is gone used nothing
		}
	}
	return m
}

// Sample returns what each group uses now. PSS costs the kernel a walk over all pages,
// so it is asked for by name. A process that is gone counts with its last CPU time.
func (m *Meter) Sample(pss bool) []Use {
	var all []Use
	for _, g := range m.groups() {
		u := Use{Group: g.Name}
		seen := m.seen[g.Name]
		if seen == nil {
			seen = map[int]time.Duration{}
			m.seen[g.Name] = seen
		}
		for _, pid := range g.PIDs {
			rss, err := RSS(pid)
			if err != nil {
				continue
			}
			u.Processes++
			u.RSS += rss
			if cpu, err := CPU(pid); err == nil {
				seen[pid] = cpu
			}
			if pss {
				n, _ := PSS(pid) // another user's process does not tell
				u.PSS += n
			}
		}
		for pid, cpu := range seen {
			u.CPU += cpu - m.base[pid]
		}
		all = append(all, u)
	}
	return all
}

var errProc = errors.New("unexpected text in /proc")

// RSS returns the resident memory of a process, in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, errProc
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err == nil && pages == 0 {
		err = errProc // it has ended and was not waited for
	}
	return pages * int64(os.Getpagesize()), err
}

// PSS returns the memory of a process in bytes, pages that n processes share counted as
// an n-th.
func PSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			f := strings.Fields(string(rest))
			if len(f) != 2 {
				return 0, errProc
			}
			kib, err := strconv.ParseInt(f[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errProc
}

// Children returns the processes that a process has started and that have not ended; nil
// when it is gone.
func Children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, text := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(text); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// CPU returns the CPU time of all threads of a process, ended ones included, user and
// system together: the kernel's own sum in nanoseconds, not the ticks of /proc.
func CPU(pid int) (time.Duration, error) {
	// The clock of a process: see clock_getcpuclockid(3). 2 is CPUCLOCK_SCHED.
	clock := int32(^pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("cpu clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
