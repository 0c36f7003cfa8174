// Package crew runs the agents of a load as processes, tells them what to do, and adds up
// what they count.
//
//	Crew ── stdin: Plan, Commands ──► agent 0 … agent n
//	     ◄─ stdout: Ticks ───────────
//
// A process may hold only so many descriptors, and a loop uses one core: so there are
// several. An agent ends when its stdin does, so none outlives the Crew.
package crew

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// Argument is what a program is started with to be an agent: it calls agent.Run.
const Argument = "agent"

// maxTick is the longest line of an agent.
const maxTick = 16 << 20

// Crew is a number of running agents. Its methods may be called concurrently.
type Crew struct {
	members []*member
	readers sync.WaitGroup

	mu      sync.Mutex
	last    []agent.Tick  // of each member, without Times
	fresh   tally.Times   // since TakeTimes
	paces   tally.Paces   // since the start
	err     error         // the first agent that failed
	changed chan struct{} // closed at each Tick, and made anew
}

type member struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	say   sync.Mutex // one command at a time
}

// State is what all agents have counted until now.
type State struct {
	Counts tally.Counts
	Ends   map[string]int64 // why connections ended and messages were refused
	Span   agent.Span
}

// errEarly is returned when an agent ends before it was told to.
var errEarly = errors.New("a process of the load ended early")

// Start starts an agent for each plan. command is the program that calls agent.Run, and
// what is to stand before it, such as nice.
func Start(command []string, plans []agent.Plan) (*Crew, error) {
	c := &Crew{last: make([]agent.Tick, len(plans)), changed: make(chan struct{})}
	for i, p := range plans {
		m, out, err := launch(command, p)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("start process %d of the load: %w", i, err)
		}
		c.members = append(c.members, m)
		c.readers.Go(func() { c.read(i, out) })
	}
	return c, nil
}

func launch(command []string, p agent.Plan) (*member, io.Reader, error) {
	cmd := exec.Command(command[0], append(slices.Clone(command[1:]), Argument)...)
	// One loop uses one core; more Ps would only look for work that is not there.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	m := &member{cmd: cmd, stdin: in}
	return m, out, m.write(p)
}

func (m *member) write(v any) error {
	m.say.Lock()
	defer m.say.Unlock()
	return json.NewEncoder(m.stdin).Encode(v)
}

// read takes the ticks of one agent until it ends.
func (c *Crew) read(i int, out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxTick)
	over := false
	for lines.Scan() {
		var t agent.Tick
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			c.fail(fmt.Errorf("a line of process %d: %w", i, err))
			break
		}
		over = t.Last
		c.take(i, t)
	}
	if !over {
		c.fail(fmt.Errorf("%w: number %d", errEarly, i))
	}
}

func (c *Crew) take(i int, t agent.Tick) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh.Merge(&t.Times)
	c.paces.Merge(t.Paces)
	t.Times, t.Paces = tally.Times{}, tally.Paces{}
	c.last[i] = t
	if t.Error != "" && c.err == nil {
		c.err = errors.New(t.Error)
	}
	c.wake()
}

func (c *Crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.wake()
}

// wake is called with mu held.
func (c *Crew) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// State adds up the agents' last Ticks.
func (c *Crew) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state()
}

func (c *Crew) state() State {
	s := State{Ends: map[string]int64{}}
	for _, t := range c.last {
		s.Counts.Add(t.Counts)
		s.Span.Merge(t.Span)
		for k, n := range t.Ends {
			s.Ends[k] += n
		}
	}
	return s
}

// TakeTimes returns what was timed since the last call.
func (c *Crew) TakeTimes() tally.Times {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.fresh
	c.fresh = tally.Times{}
	return t
}

// Paces returns when what happened, since the start.
func (c *Crew) Paces() tally.Paces {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paces.Clone()
}

// Tell gives each agent a command: what command returns for its number.
func (c *Crew) Tell(command func(i int) agent.Command) error {
	for i, m := range c.members {
		if err := m.write(command(i)); err != nil {
			return fmt.Errorf("tell process %d of the load: %w", i, err)
		}
	}
	return nil
}

// Await returns when done does, which is asked at each Tick. It ends early with done's
// error, with that of an agent, and with ctx.
func (c *Crew) Await(ctx context.Context, done func(State) (bool, error)) error {
	for {
		c.mu.Lock()
		s, err, changed := c.state(), c.err, c.changed
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if ok, err := done(s); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Finish makes every agent count what is missing and end, and returns when all have.
func (c *Crew) Finish(ctx context.Context) (State, error) {
	if err := c.Tell(func(int) agent.Command { return agent.Command{Do: agent.Finish} }); err != nil {
		return State{}, err
	}
	err := c.Await(ctx, func(State) (bool, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, t := range c.last {
			if !t.Last {
				return false, nil
			}
		}
		return true, nil
	})
	return c.State(), err
}

// PIDs returns the agents' process ids.
func (c *Crew) PIDs() []int {
	var all []int
	for _, m := range c.members {
		all = append(all, m.cmd.Process.Pid)
	}
	return all
}

// Close ends every agent and returns when they are gone.
func (c *Crew) Close() {
	for _, m := range c.members {
		_ = m.stdin.Close()
		_ = m.cmd.Process.Kill() // its sockets close with it
	}
	c.readers.Wait()
	for _, m := range c.members {
		_ = m.cmd.Wait() // its exit code says nothing that its last Tick does not
	}
}

// Share is what part i of n has of all: the parts differ by one at most.
func Share(all, i, n int) int { return all*(i+1)/n - all*i/n }
