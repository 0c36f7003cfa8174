package fleet

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/wirepost/wirepost/scripts/usage"
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
	pid := l.cmd.Process.Pid
	if cpu, err := usage.CPU(pid); err == nil { // it may have ended meanwhile
		u.CPU += cpu
	}
	u.RSS, _ = usage.RSS(pid)
	return u
}

// stopped reports whether a process stands still (SIGSTOP).
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name, in parentheses, may hold anything: the state stands behind its end.
	return err == nil && bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" T"))
}
