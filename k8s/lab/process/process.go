// Package process starts the programs of the rehearsal, keeps what they say in files, and
// ends them. A program that ends without being told to ends the rehearsal.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Group are the programs that run. Its methods may be called from any goroutine.
type Group struct {
	logs string // the folder of their output
	fail context.CancelCauseFunc

	mu      sync.Mutex
	running []*Process
	closed  bool
}

// Process is one program.
type Process struct {
	Name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it is gone

	mu   sync.Mutex
	told bool // to end
}

// NewGroup returns a group whose programs write into files in logs. fail is called with
// what happened when one of them ends by itself.
func NewGroup(logs string, fail context.CancelCauseFunc) *Group {
	return &Group{logs: logs, fail: fail}
}

// errClosed is returned by Start once the group has been closed.
var errClosed = errors.New("everything is being stopped")

// Start starts a program. Its output goes to <name>.log.
func (g *Group) Start(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{Name: name, cmd: cmd, log: filepath.Join(g.logs, name+".log"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = out, out
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosed
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	g.running = append(g.running, p)
	go func() {
		err := cmd.Wait()
		close(p.ended)
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.told {
			g.fail(fmt.Errorf("%s ended by itself (%v); its last words, in %s:\n%s", name, err, p.log, p.Tail(15)))
		}
	}()
	return p, nil
}

// Close ends all programs at once, each with grace to end by itself, and lets no other one
// start.
func (g *Group) Close(grace time.Duration) {
	g.mu.Lock()
	g.closed = true
	running := g.running
	g.mu.Unlock()
	for _, p := range running {
		p.expect() // also those that end because of another one's end
	}
	var stopping sync.WaitGroup
	for _, p := range running {
		stopping.Go(func() { p.Stop(grace) })
	}
	stopping.Wait()
}

// expect makes the end of the program no failure.
func (p *Process) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
}

// Stop sends SIGTERM, after grace SIGKILL, and returns when the program is gone.
func (p *Process) Stop(grace time.Duration) {
	p.expect()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Signal sends a signal, such as SIGSTOP.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Ended is closed when the program is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Tail returns the last lines of what the program said.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Await asks ten times a second until ready returns nil, ctx ends or the time is over. For what
// gives no signal, such as a port of another program.
func Await(ctx context.Context, what string, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error // but for that of the end
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
