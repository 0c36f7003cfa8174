package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/load"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/shared/stream"
)

const (
	users   = 40
	devices = users * 5 / 4 // a quarter of them has a second one

	// smaller is by how much the machine is smaller than a cluster: batches of workers, and
	// with them the autoscaler's target, are divided by it.
	smaller = 8
	batch   = 256 / smaller

	// fewLanes is with how many lanes a whole rehearsal begins, to be given the default's
	// number while workers and edges are replaced.
	fewLanes = stream.DefaultLanes / 2
)

// rehearsal is what runs.
type rehearsal struct {
	o     *options
	out   io.Writer
	dir   string
	k8s   string // folder of the repository
	began time.Time
	f     *fleet.Fleet
}

func (r *rehearsal) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%6.1fs  "+format+"\n", append([]any{time.Since(r.began).Seconds()}, args...)...)
}

// play starts production, rolls it, scales it, and says whether all went well.
func (r *rehearsal) play(ctx context.Context) (err error) {
	sctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	lanes := fewLanes
	if r.o.short {
		lanes = stream.DefaultLanes
	}
	r.f, err = fleet.Start(sctx, fleet.Spec{
		Dir: filepath.Join(r.dir, "fleet"), Bin: r.o.bin, Edges: 2, Workers: 2, NATS: 3,
		Store: fleet.Store{Kind: fleet.Mongo, Members: 3}, Shipped: r.k8s, Lanes: lanes, WorkerEnv: []string{fmt.Sprintf("BATCH=%d", batch)},
	})
	if err != nil {
		return err
	}
	defer func() {
		r.f.Close()
		r.f.RemoveData()
	}()
	r.say("production runs: nginx, 2 edges, 3 nats-servers with TLS and accounts, 2 workers, 3 mongods; %d lanes, %d shards, batches of %d",
		lanes, stream.DefaultShards, batch)
	for _, part := range []func(context.Context) error{r.roll, r.scale} {
		if perr := part(ctx); perr != nil && !errors.Is(perr, errBroken) {
			return perr
		} else if perr != nil {
			err = perr
		}
	}
	return errors.Join(err, r.accidents())
}

// accidents are what no step asked for.
func (r *rehearsal) accidents() error {
	var all []string
	for _, d := range r.f.Deaths() {
		all = append(all, d.String())
	}
	complaints, err := r.f.Complaints()
	if err != nil {
		return err
	}
	for _, c := range complaints {
		all = append(all, c.Process.Name+": "+c.Text)
	}
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(r.out, strings.Join(all, "\n"))
	return errBroken
}

// part is one history, from the first login to the verdict.
type part struct {
	*trial.Trial
	path  string
	steps int
}

// begin lets users begin, who send so many messages a second from now on.
func (r *rehearsal) begin(ctx context.Context, name string, rate float64) (*part, error) {
	path := filepath.Join(r.dir, name+".jsonl")
	t, err := trial.Begin(ctx, r.f, path, history.Record{Note: name}, load.Options{
		Seed: r.o.seed, Prefix: name + "-", Users: users, Second: devices - users, Rate: rate})
	if err != nil {
		return nil, err
	}
	t.Say = r.say
	t.L.Run()
	return &part{Trial: t, path: path}, nil
}

// note writes a step into the history, where the checker finds it. Service may not be away
// for longer than promised from its beginning on: nothing here is to take service away.
func (p *part) note(name string) {
	p.steps++
	p.H.Add(history.Record{Kind: history.Fault, Fault: p.steps, Name: name, Kill: true})
}

func (p *part) noteEnd() { p.H.Add(history.Record{Kind: history.Heal, Fault: p.steps}) }

// finish ends a part and prints what the checker says, and what clients felt of each step.
func (r *rehearsal) finish(ctx context.Context, p *part) ([]felt, error) {
	rep, err := p.Finish(ctx)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(p.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was read
	steps, err := feel(file)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(r.out)
	printFelt(r.out, steps, rep)
	return steps, r.judge(rep, p.L.Failures())
}

// judge prints what the checker found.
func (r *rehearsal) judge(rep *check.Report, failures []error) error {
	s := rep.Stats.Sends
	fmt.Fprintf(r.out, "\n%d messages sent, %d acknowledged, %d stored, %d refused (sent to nobody), %d missing; lost %d, doubled %d, out of order %d\n\n",
		s.Attempted, s.Acked, s.Stored, s.Refused, s.Missing, rep.Counts[check.Lost], rep.Counts[check.Duplicated],
		rep.Counts[check.RealTime]+rep.Counts[check.SenderOrder])
	if rep.OK() && len(failures) == 0 {
		return nil
	}
	fmt.Fprintln(r.out, rep, errors.Join(failures...))
	return errBroken
}
