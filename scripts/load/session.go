package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/report"
	"github.com/wirepost/wirepost/scripts/load/stage"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// tick is the time between two reports of a process of the load.
const tick = 250 * time.Millisecond

// session is one run against one gateway.
type session struct {
	cfg     config
	out     io.Writer
	target  target
	crew    *crew.Crew
	stage   stage.Stage
	watch   *report.Recorder
	result  report.Result
	crashed int64 // connections that were lost because edges were killed
}

// newSession starts what is to be loaded, if it is to be started, and the processes of
// the load. The caller closes it.
func newSession(ctx context.Context, cfg config, out io.Writer) (*session, error) {
	if cfg.json == "-" {
		out = os.Stderr
	}
	s := &session{cfg: cfg, out: report.Shared(out)}
	if err := s.start(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) start(ctx context.Context) (err error) {
	if s.target, err = startTarget(ctx, &s.cfg, s.out); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if s.crew, err = crew.Start([]string{exe}, s.plans()); err != nil {
		return err
	}
	s.stage = stage.Stage{Crew: s.crew, Conns: s.cfg.n, Processes: s.cfg.processes, Tick: tick}
	s.watch = report.NewRecorder(s.crew, s.target.groups, s.out, tally.Deliver, tally.Ack, tally.Back, tally.Login, tally.Beat)
	s.result = report.Result{
		Mode: s.cfg.mode, Against: s.target.name, Commit: checkout.Version(), Machine: report.Machine(), Began: time.Now(),
		Connections: s.cfg.n, Processes: s.cfg.processes,
	}
	return nil
}

func (s *session) close() {
	if s.crew != nil {
		s.crew.Close()
	}
	s.target.close()
}

// plans are what the processes of the load are told.
func (s *session) plans() []agent.Plan {
	c := &s.cfg
	traffic := map[string]agent.Traffic{modeSelf: agent.Self, modeFanout: agent.Fanout, modeChat: agent.Pairs, modeReconnect: agent.Pairs, modeRolling: agent.Ring}[c.mode]
	if traffic == "" {
		traffic = agent.Self // that nobody begins
	}
	run := "load" + strings.ToLower(rand.Text()[:8])
	var all []agent.Plan
	tokens := c.tokens
	for i := range c.processes {
		p := agent.Plan{
			URLs: c.urls, Traffic: traffic, Run: run, Index: i, Conns: crew.Share(c.n, i, c.processes), Devices: c.devices,
			Secret: c.secret, ConnectRate: c.connectRate / float64(c.processes), InFlight: max(1, c.inFlight/c.processes),
			Size: c.size, Tick: tick, Forgetful: c.forgetful,
		}
		if c.secret == "" {
			n := min(p.Conns, len(tokens))
			p.Tokens, tokens = tokens[:n], tokens[n:]
		}
		all = append(all, p)
	}
	return all
}

// run does what the mode asks for and returns what was seen.
func (s *session) run(ctx context.Context) (*report.Result, error) {
	watching, stop := context.WithCancel(ctx)
	var lines sync.WaitGroup
	lines.Go(func() { s.watch.Run(watching) })
	err := s.play(ctx)
	stop()
	lines.Wait()
	if err != nil {
		return nil, err
	}
	online := s.crew.State().Counts[tally.Online]
	end, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	state, err := s.crew.Finish(end)
	if err != nil {
		return nil, err
	}
	r := &s.result
	r.Counts, r.Ends = state.Counts, state.Ends
	times := s.watch.Times()
	r.Latency, r.Seconds = report.Latencies(&times), s.watch.Seconds()
	if r.Rolling != nil {
		r.Rolling.Saw(s.crew.Paces(), &times)
	}
	r.Judge(online, s.crashed)
	return r, nil
}

// measure records the use of memory at a number of connections, after a rest.
func (s *session) measure(ctx context.Context) error {
	if err := s.stage.Hold(ctx, s.cfg.settle); err != nil {
		return err
	}
	s.result.Steps = append(s.result.Steps, report.Step{Connections: s.crew.State().Counts[tally.Online], Use: s.watch.Sample()})
	return nil
}

// send lets messages be sent until during returns, and waits until all have arrived or
// the grace period is over.
func (s *session) send(ctx context.Context, during func(context.Context) error) error {
	before, began := s.watch.Sample(), time.Now()
	if err := s.stage.Send(s.cfg.messages, 0); err != nil {
		return err
	}
	if err := during(ctx); err != nil {
		return err
	}
	if err := s.stage.Stop(); err != nil {
		return err
	}
	last := time.Now()
	if err := s.stage.Settle(ctx, last, s.cfg.grace); err != nil {
		return err
	}
	st := s.crew.State()
	s.result.Traffic = report.TrafficOf(st.Counts, began, last, time.Unix(0, st.Span.LastAck), before, s.watch.Sample())
	return nil
}

// tell prints the result and writes the files that were asked for.
func tell(cfg config, r *report.Result, out io.Writer) error {
	var errs []error
	if cfg.json == "-" {
		r.Print(os.Stderr)
	} else {
		r.Print(out)
	}
	if cfg.json != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil && cfg.json == "-" {
			_, err = fmt.Fprintf(out, "%s\n", b)
		} else if err == nil {
			err = os.WriteFile(cfg.json, append(b, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	if cfg.plot != "" {
		errs = append(errs, r.Draw(cfg.plot))
	}
	return errors.Join(errs...)
}
