package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/child"
)

const (
	readyTimeout = time.Minute // of one process, on a machine that starts sixty of them
	readyEvery   = 25 * time.Millisecond
	logTail      = 2000 // bytes of a log in an error
)

// Process is one program. It keeps its command and its log when it is started again.
// Its methods may be called concurrently, but Start and Kill only one at a time.
type Process struct {
	Name string
	args []string // the program first
	env  []string
	log  string

	mu   sync.Mutex
	cmd  *exec.Cmd     // guarded by mu
	gone chan struct{} // guarded by mu: closed when cmd has been waited for
}

// Command returns a process that a shell command runs, in this process's environment. Its
// output goes to a file.
func Command(name, command, log string) *Process {
	return &Process{Name: name, args: []string{"/bin/sh", "-c", "exec " + command}, env: os.Environ(), log: log}
}

// Start starts the process, which dies with this one, however this one ends.
func (p *Process) Start() error {
	out, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, out, out
	gone := make(chan struct{})
	if err := child.Start(cmd, func() { close(gone) }); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.gone = cmd, gone
	return nil
}

// life returns what was started last, nil before the first Start.
func (p *Process) life() (*exec.Cmd, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.gone
}

// PID returns the process's id, 0 when it was never started.
func (p *Process) PID() int {
	cmd, _ := p.life()
	if cmd == nil {
		return 0
	}
	return cmd.Process.Pid
}

// Kill is SIGKILL. It returns when the process is gone.
func (p *Process) Kill() {
	if cmd, gone := p.life(); cmd != nil {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-gone
	}
}

var (
	errGrace = errors.New("did not end within its grace")
	errExit  = errors.New("ended with an error")
)

// Stop is SIGTERM. It returns when the process is gone, and how long that took; its error
// says that it did not end within grace, or not well.
func (p *Process) Stop(grace time.Duration) (time.Duration, error) {
	cmd, gone := p.life()
	if cmd == nil {
		return 0, nil
	}
	began, late := time.Now(), time.NewTimer(grace)
	defer late.Stop()
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-gone:
	case <-late.C:
		return time.Since(began), fmt.Errorf("%s: %w of %v", p.Name, errGrace, grace)
	}
	took := time.Since(began)
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return took, fmt.Errorf("%s: %w (exit code %d): %s", p.Name, errExit, code, p.tail())
	}
	return took, nil
}

// await returns when probe does without an error.
func (p *Process) await(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_, gone := p.life()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("%s ended: %s", p.Name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w (its log: %s)", p.Name, ctx.Err(), err, p.tail())
		case <-time.After(readyEvery): // readiness sends no signal
		}
	}
}

func (p *Process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}
