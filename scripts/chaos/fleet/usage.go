package fleet

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used.
type Usage struct {
	Process *Process
	CPU     time.Duration // of all of its lives
	RSS     int64         // bytes now; 0 when it does not run
	Starts  int
}

// Usage returns what every process of the fleet has used, in the order of Processes.
func (f *Fleet) Usage() []Usage {
	var all []Usage
	for _, p := range f.Processes() {
		all = append(all, p.usage())
	}
	return all
}

func (p *Process) usage() Usage {
	p.mu.Lock()
	u, l := Usage{Process: p, CPU: p.spent, Starts: p.starts}, p.running()
	p.mu.Unlock()
	if l == nil {
		return u
	}
	if s, err := statOf(l.cmd.Process.Pid); err == nil { // it may have ended meanwhile
		u.CPU += s.cpu
		u.RSS = s.rss
	}
	return u
}

// stat is what /proc tells of a process.
type stat struct {
	state string // R, S, D, T (stopped), Z …
	cpu   time.Duration
	rss   int64 // bytes
}

// clockTick is the unit of times in /proc; Linux has it at 100 a second everywhere.
const clockTick = 10 * time.Millisecond

var errProc = errors.New("unexpected text in /proc")

func statOf(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything: fields are counted after its end.
	text := string(b)
	field := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const state, user, system, resident = 0, 11, 12, 21
	if len(field) <= resident {
		return stat{}, errProc
	}
	var n [3]int64
	for i, at := range []int{user, system, resident} {
		if n[i], err = strconv.ParseInt(field[at], 10, 64); err != nil {
			return stat{}, fmt.Errorf("%w: %w", errProc, err)
		}
	}
	return stat{
		state: field[state],
		cpu:   time.Duration(n[0]+n[1]) * clockTick,
		rss:   n[2] * int64(os.Getpagesize()),
	}, nil
}
