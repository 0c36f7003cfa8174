// Package proc starts the processes that are measured, and reads from the kernel what
// they use.
//
// It knows nothing of what they do.
package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a child that dies with this process, however this one ends.
type Process struct {
	Name string
	PID  int
	In   io.WriteCloser // its stdin, nil unless wanted
	Out  io.ReadCloser  // its stdout; it ends when the process does

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been waited for
	said *tail
}

// ErrEnded is returned when a process ended that should run.
var ErrEnded = errors.New("process has ended")

// Spec says what to start.
type Spec struct {
	Name  string // in figures and errors
	Bin   string
	Args  []string
	Env   []string // added to this process's
	Pipes bool     // In and Out are wanted; else stdout is kept with stderr for errors
}

// Start starts a process. The caller ends it with Kill.
func Start(s Spec) (*Process, error) {
	p := &Process{Name: s.Name, gone: make(chan struct{}), said: &tail{}}
	p.cmd = exec.Command(s.Bin, s.Args...)
	p.cmd.Env = append(os.Environ(), s.Env...)
	p.cmd.Stderr = p.said
	if err := p.pipes(s.Pipes); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // what it said tells more than its exit code
			close(p.gone)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p.PID = p.cmd.Process.Pid
	return p, nil
}

func (p *Process) pipes(wanted bool) (err error) {
	if !wanted {
		p.cmd.Stdout = p.said
		return nil
	}
	if p.In, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	p.Out, err = p.cmd.StdoutPipe()
	return err
}

// Kill ends the process and returns when it is gone. It may be called more than once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.gone
}

// Err returns an error that tells what the process said, when it has ended.
func (p *Process) Err() error {
	select {
	case <-p.gone:
		return fmt.Errorf("%s: %w: %s", p.Name, ErrEnded, p.said)
	default:
		return nil
	}
}

const (
	readyTimeout = 30 * time.Second
	readyStep    = 10 * time.Millisecond
)

// Await asks until ready returns nil. It fails when the process has ended, or after 30 s.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.gone:
			return p.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w: %s", p.Name, ctx.Err(), err, p.said)
		case <-time.After(readyStep):
		}
	}
}

// Listening returns a question for Await: does somebody listen at addr?
func Listening(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// FreeAddr returns a loopback address that nobody listens at.
func FreeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// tail keeps the last words of a process.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const keepTail = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - keepTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
