package fleet

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// What operators do to parts that they want to keep: how each is taken away gently.

func (f *Fleet) pidFile(p *Process) string { return filepath.Join(f.spec.Dir, p.Name+".pid") }

// LameDuck ends a nats-server as its pod does: the command of its preStop hook, then
// SIGTERM, which does not hurry it. It returns when the process is gone, after its
// lame_duck_duration at the latest.
func (f *Fleet) LameDuck(ctx context.Context, p *Process) (Exit, error) {
	l := p.current()
	if l == nil {
		return Exit{}, fmt.Errorf("lame duck %s: %w", p.Name, ErrNotRunning)
	}
	l.asked.Store(true)
	if out, err := exec.CommandContext(ctx, p.command.bin, "--signal", "ldm="+f.pidFile(p)).CombinedOutput(); err != nil {
		return Exit{}, fmt.Errorf("lame duck %s: %w: %s", p.Name, err, out)
	}
	err := poll(ctx, p.Name+" is a lame duck", func(context.Context) error {
		b, err := readFrom(p.Log, l.logFrom)
		if err == nil && !l.over() && !strings.Contains(string(b), "Entering lame duck mode") {
			err = errNotYet
		}
		return err
	})
	if err != nil {
		return Exit{}, err
	}
	return p.Terminate()
}

// StepDown lets the primary of the store make room for another, and returns when there
// is one.
func (f *Fleet) StepDown(ctx context.Context) (from, to *Process, err error) {
	if from, err = f.Primary(ctx); err != nil {
		return nil, nil, err
	}
	const away = 60 // seconds in which it does not come back
	cmd := bson.D{{Key: "replSetStepDown", Value: away}, {Key: "secondaryCatchUpPeriodSecs", Value: 10}}
	if err := f.members[from.Index].Database("admin").RunCommand(ctx, cmd).Err(); err != nil {
		return nil, nil, fmt.Errorf("step down %s: %w", from.Name, err)
	}
	to, err = f.Primary(ctx)
	return from, to, err
}

// ReloadNginx lets nginx read its configuration anew.
func (f *Fleet) ReloadNginx() error {
	l := f.nginx.current()
	if l == nil {
		return fmt.Errorf("reload: %w", ErrNotRunning)
	}
	l.signal(syscall.SIGHUP)
	return nil
}

// SetLanes gives every edge and every worker another number of lanes, from its next start
// on. Nothing else may be done with the fleet meanwhile.
func (f *Fleet) SetLanes(n int) {
	f.spec.Lanes = n
	for _, p := range append(f.Edges(), f.everyWorker()...) {
		p.mu.Lock()
		p.command.env = append(p.command.env, "LANES="+strconv.Itoa(n)) // the last one counts
		p.mu.Unlock()
	}
}

// Nginx is the nginx before the edges, nil when there is none.
func (f *Fleet) Nginx() *Process { return f.nginx }
