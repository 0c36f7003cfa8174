// Package child starts processes that die with this one, however this one ends: servers
// that tests and tools run, which nobody else would end.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd and returns. When the process has ended and was waited for, ended runs,
// on a goroutine of its own; how it ended is in cmd.ProcessState. It does not run when
// Start returns an error.
//
// The kernel sends the parent-death signal when the thread that started the child ends, so
// that thread is kept until the child is gone.
func Start(cmd *exec.Cmd, ended func()) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1) // written once by the goroutine below
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its state says the same
			ended()
		}
	}()
	return <-started
}
