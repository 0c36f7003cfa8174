package fleet

import (
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/child"
)

// life is one run of a process, from its start to its end.
type life struct {
	cmd     *exec.Cmd
	started time.Time
	logFrom int64         // where this life begins in the log
	gone    chan struct{} // closed when the process has been waited for
	noted   chan struct{} // closed when its end was looked at

	asked  atomic.Bool // a verb wants its end
	paused atomic.Bool
}

// begin starts cmd as a child that dies with this process. When the child is gone, ended
// runs on a goroutine of its own; it closes gone.
func begin(cmd *exec.Cmd, logFrom int64, ended func(*life)) (*life, error) {
	l := &life{cmd: cmd, started: time.Now(), logFrom: logFrom, gone: make(chan struct{}), noted: make(chan struct{})}
	err := child.Start(cmd, func() {
		ended(l)
		close(l.noted)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *life) over() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// signal does nothing when the process has ended.
func (l *life) signal(s syscall.Signal) { _ = l.cmd.Process.Signal(s) }
