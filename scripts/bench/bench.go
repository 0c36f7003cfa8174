package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
	"github.com/wirepost/wirepost/scripts/bench/proc"
	"github.com/wirepost/wirepost/scripts/bench/system"
)

// bench is one run.
type bench struct {
	self   string // path of this program
	bin    system.Binaries
	load   string // path of bin/load; what it starts lies beside it
	spans  spans
	tables []*figure.Table
}

// spans are how much and how long is measured.
type spans struct {
	rounds       int
	idleFrom     int           // connections at the first measurement of memory
	idleTo       int           // and at the second: what one process may hold
	settle       time.Duration // before memory is measured: the garbage of the logins is collected
	hold         time.Duration // of pings
	warm         time.Duration // before each measurement of messages
	span         time.Duration // of messages
	chat         time.Duration // of stored messages
	load         time.Duration // of the messages of bin/load
	natsMessages int
	accepts      int
}

func full(rounds int) spans {
	return spans{rounds: rounds, idleFrom: 2000, idleTo: 15000, settle: 4 * time.Second, hold: 8 * time.Second,
		warm: 300 * time.Millisecond, span: 2 * time.Second, chat: 8 * time.Second, load: 10 * time.Second, natsMessages: 200_000, accepts: 15000}
}

func short() spans {
	return spans{rounds: 1, idleFrom: 1000, idleTo: 5000, settle: 2 * time.Second, hold: 3 * time.Second,
		warm: 200 * time.Millisecond, span: time.Second, chat: 3 * time.Second, load: 4 * time.Second, natsMessages: 50_000, accepts: 5000}
}

// table makes a table of the report.
func (b *bench) table(t figure.Table) *figure.Table {
	b.tables = append(b.tables, &t)
	return &t
}

// subject is who is measured.
type subject struct {
	name    string
	kind    peer.Kind // "": bin/edge with a nats-server
	mode    peer.Mode
	dialect string
	devices int // connections of a user, of bin/edge
}

// Names of rows.
const (
	nameEdge   = "**wirepost** edge"
	nameRooms  = "**wirepost** edge's rooms"
	nameGobwas = "floor: epoll + gobwas/ws"
	nameTCP    = "floor: epoll, read, write"
)

// target is a server that runs, with its load generator.
type target struct {
	server *proc.Process
	system *system.System // nil for a peer
	load   *gen.Driver
}

func (t *target) stop() {
	if t.load != nil {
		t.load.Kill()
	}
	if t.system != nil {
		t.system.Stop()
	} else if t.server != nil {
		t.server.Kill()
	}
}

// start starts a subject and a generator with up to conns connections.
func (b *bench) start(ctx context.Context, s subject, conns int) (t *target, err error) {
	t = &target{}
	defer func() {
		if err != nil {
			t.stop()
			err = fmt.Errorf("%s: %w", s.name, err)
		}
	}()
	o := gen.Options{Dialect: s.dialect, Conns: conns, Devices: s.devices}
	if s.kind == "" {
		if t.system, err = system.Start(ctx, b.bin, false); err != nil {
			return t, err
		}
		t.server = t.system.Edge
		o.URL, o.Secret, o.NATS = t.system.URL, t.system.Secret, t.system.NATSURL
	} else {
		addr, err := proc.FreeAddr()
		if err != nil {
			return t, err
		}
		t.server, err = proc.Start(proc.Spec{Name: string(s.kind), Bin: b.self, Args: []string{"server", string(s.kind), string(s.mode), addr}})
		if err != nil {
			return t, err
		}
		if err := t.server.Await(ctx, proc.Listening(addr)); err != nil {
			return t, err
		}
		o.URL = "ws://" + addr + "/ws"
	}
	t.load, err = gen.Start(b.self, o)
	return t, err
}

// each runs f for every subject in turns, round by round, so that what disturbs the
// machine disturbs all alike.
func (b *bench) each(ctx context.Context, what string, all []subject, conns int, f func(subject, *target) error) error {
	for round := range b.spans.rounds {
		for _, s := range all {
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", what, round+1, b.spans.rounds, strings.ReplaceAll(s.name, "*", ""))
			t, err := b.start(ctx, s, conns)
			if err != nil {
				return err
			}
			err = f(s, t)
			if err != nil {
				err = fmt.Errorf("%s: %w", s.name, errors.Join(err, t.server.Err()))
			}
			t.stop()
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
		}
	}
	return nil
}

// metered is a command and what processes used while it ran.
func (t *target) metered(c gen.Command, all ...*proc.Process) (gen.Result, []time.Duration, time.Duration, error) {
	m, err := proc.NewMeter(all...)
	if err != nil {
		return gen.Result{}, nil, 0, err
	}
	r, err := t.load.Do(c)
	if err != nil {
		return r, nil, 0, err
	}
	used, span, err := m.Read()
	return r, used, span, err
}

// micros is a time for each of n, in microseconds.
func micros(d time.Duration, n int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}

// perSecond is a rate.
func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }
