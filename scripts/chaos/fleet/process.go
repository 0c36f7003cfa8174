package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Kind is what a process is.
type Kind string

// The kinds of processes.
const (
	Edge   Kind = "edge"
	Worker Kind = "worker"
	NATS   Kind = "nats"
	Mongo  Kind = "mongo"
	Ferret Kind = "ferret"
	Nginx  Kind = "nginx"
)

const (
	// terminateTimeout is longer than an edge may take to drain with its defaults.
	terminateTimeout = 75 * time.Second
	// pauseTimeout bounds the wait for the kernel to stop a process.
	pauseTimeout = 2 * time.Second
	// pollStep is how often a state without a signal is looked at.
	pollStep = 25 * time.Millisecond
)

var (
	// ErrRunning is returned by Start when the process runs.
	ErrRunning = errors.New("process is running")
	// ErrNotRunning is returned when a verb needs a running process and it is none.
	ErrNotRunning = errors.New("process is not running")
	// ErrClosed is returned by Start after the fleet was closed.
	ErrClosed = errors.New("fleet is closed")
	// errStubborn is returned when a process had to be killed.
	errStubborn = errors.New("process did not end in time and was killed")
)

// Process is one program of a fleet. It keeps its name, ports, folder, and log over
// restarts. Its methods may be called concurrently.
type Process struct {
	Name  string // such as edge-0, nats-2, ferret
	Kind  Kind
	Index int    // among those of its kind
	Addr  string // where it listens itself, without a proxy; "" for workers
	Admin string // edges, workers: health and metrics; nats-servers: monitoring; else ""
	Log   string // file that all of its lives append to

	Public string // where clients reach an edge, through a proxy, or nginx; else ""

	command command
	probe   func(context.Context) error // nil when it serves
	died    func(Death)

	lives
}

// lives is what happened to a process so far.
type lives struct {
	mu       sync.Mutex
	life     *life         // the last one; nil before the first
	starts   int           // how many lives there were
	spent    time.Duration // CPU time of lives that are over
	retrying bool          // its port was taken, it is started again soon
	closed   bool          // the fleet is
}

// command is how a process is started.
type command struct {
	bin  string
	args []string
	env  []string
}

// Exit is how a process ended.
type Exit struct {
	Code int           // -1: by a signal
	Took time.Duration // since it was asked to
}

func (p *Process) String() string { return p.Name }

// Start starts the process, which is not ready yet when Start returns.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("start %s: %w", p.Name, ErrClosed)
	case p.running() != nil:
		return fmt.Errorf("start %s: %w", p.Name, ErrRunning)
	}
	return p.start()
}

// start is Start while mu is held and nothing runs.
func (p *Process) start() error {
	out, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = out.Close() }()
	p.starts++
	if p.starts > 1 {
		_, _ = fmt.Fprintf(out, "--- start %d of %s ---\n", p.starts, p.Name)
	}
	at, err := out.Stat()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	cmd := exec.Command(p.command.bin, p.command.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.command.env, out, out
	l, err := begin(cmd, at.Size(), p.ended)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.life = l
	return nil
}

// running returns the present life, or nil. mu is held.
func (p *Process) running() *life {
	if p.life == nil || p.life.over() {
		return nil
	}
	return p.life
}

func (p *Process) current() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// Running reports whether the process exists, paused or not.
func (p *Process) Running() bool { return p.current() != nil }

// Paused reports whether the process is paused.
func (p *Process) Paused() bool {
	l := p.current()
	return l != nil && l.paused.Load()
}

// PID is the process's id, or 0 when it does not run.
func (p *Process) PID() int {
	if l := p.current(); l != nil {
		return l.cmd.Process.Pid
	}
	return 0
}

// Kill is SIGKILL, also of a paused process. It returns when the process is gone, at
// once when it does not run.
func (p *Process) Kill() {
	if l := p.current(); l != nil {
		l.asked.Store(true)
		l.signal(syscall.SIGKILL)
		<-l.gone
	}
}

// Terminate is SIGTERM, and SIGCONT if the process is paused. It returns when the process
// is gone; one that takes longer than 75 s is killed, which is an error.
func (p *Process) Terminate() (Exit, error) {
	l := p.current()
	if l == nil {
		return Exit{}, fmt.Errorf("terminate %s: %w", p.Name, ErrNotRunning)
	}
	asked := time.Now()
	l.asked.Store(true)
	l.signal(syscall.SIGTERM)
	if l.paused.Load() {
		l.signal(syscall.SIGCONT)
	}
	var err error
	late := time.NewTimer(terminateTimeout)
	defer late.Stop()
	select {
	case <-l.gone:
	case <-late.C:
		err = fmt.Errorf("terminate %s: %w", p.Name, errStubborn)
		l.signal(syscall.SIGKILL)
		<-l.gone
	}
	return Exit{Code: l.cmd.ProcessState.ExitCode(), Took: time.Since(asked)}, err
}

// Pause is SIGSTOP. It returns when the process stands still.
func (p *Process) Pause() error {
	l := p.current()
	if l == nil {
		return fmt.Errorf("pause %s: %w", p.Name, ErrNotRunning)
	}
	l.paused.Store(true)
	l.signal(syscall.SIGSTOP)
	for end := time.Now().Add(pauseTimeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if l.over() {
			return fmt.Errorf("pause %s: %w", p.Name, ErrNotRunning)
		}
		if stopped(l.cmd.Process.Pid) {
			return nil
		}
	}
	return fmt.Errorf("pause %s: it did not stop within %v", p.Name, pauseTimeout)
}

// Resume is SIGCONT: a paused process goes on.
func (p *Process) Resume() error {
	l := p.current()
	if l == nil {
		return fmt.Errorf("resume %s: %w", p.Name, ErrNotRunning)
	}
	l.signal(syscall.SIGCONT)
	l.paused.Store(false)
	return nil
}

// Ready returns when the process serves, or with an error when it has ended, or ctx does.
func (p *Process) Ready(ctx context.Context) error {
	for {
		ended := p.hasEnded()
		err := p.probeOnce(ctx)
		switch {
		case err == nil:
			return nil
		case ended:
			return fmt.Errorf("%s is not ready: %w (its log: %s)", p.Name, ErrNotRunning, p.Tail(2000))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w (its log: %s)", p.Name, ctx.Err(), err, p.Tail(2000))
		case <-time.After(pollStep):
		}
	}
}

// hasEnded reports whether the process runs no more, and will not by itself.
func (p *Process) hasEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running() == nil && !p.retrying
}

func (p *Process) probeOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return p.probe(ctx)
}

// close ends the process for good. It returns when nothing of it runs here either.
func (p *Process) close() {
	p.mu.Lock()
	p.closed = true
	last := p.life // the last for ever
	p.mu.Unlock()
	p.Kill()
	if last != nil {
		<-last.noted
	}
}
