package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/load/wire"
)

// maxPlan is the longest line to an agent: a plan may hold a token of each user.
const maxPlan = 64 << 20

// closing is how many connections may be in their closing handshake while their devices
// open the next: a client that leaves an edge does not wait for it.
const closing = 128

// agent is the Handler of its wire.Client. Everything but the reading of commands and
// the writing of ticks runs on the Client's goroutine.
type agent struct {
	plan    Plan
	users   users
	client  *wire.Client
	devices []device
	sends   sends
	plays   schedule
	later   later // what devices will do: see device.due
	waiting int   // devices that will connect again
	opened  int   // devices that were told to connect
	rnd     *rand.Rand
	pairs   []int         // of devices: 2i and 2i+1 talk to each other; nil until the first does
	ended   chan struct{} // closed when the loop has ended
	frame   []byte        // scratch
	seen
}

// seen is what a Tick tells.
type seen struct {
	counts tally.Counts
	times  tally.Times // since the last tick
	paces  tally.Paces // since the last tick
	ends   map[string]int64
	span   Span
}

// Run is the whole life of an agent: it reads a Plan and Commands from in, writes Ticks
// to out, and returns after Finish or at the end of in.
func Run(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxPlan)
	if !lines.Scan() {
		return errors.New("agent: no plan")
	}
	var p Plan
	if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
		return fmt.Errorf("agent: plan: %w", err)
	}
	a, err := newAgent(p)
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(Tick{Last: true, Error: err.Error()}))
	}
	go func() {
		defer close(a.ended)
		err = a.client.Run()
	}()
	a.serve(lines, out)
	a.client.Stop()
	<-a.ended
	return err
}

func newAgent(p Plan) (*agent, error) {
	a := &agent{plan: p, seen: seen{ends: map[string]int64{}}, devices: make([]device, p.Conns),
		rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), ended: make(chan struct{})}
	a.users.plan = &a.plan
	a.sends.init(&a.plan)
	if err := p.check(); err != nil {
		return nil, err
	}
	var targets []wire.Target
	for _, u := range p.URLs {
		t, err := wire.ParseTarget(u)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if err := a.users.check(); err != nil {
		return nil, err
	}
	c, err := wire.New(a, wire.Options{Targets: targets, Conns: p.Conns + closing, Rate: p.ConnectRate, InFlight: p.InFlight})
	if err != nil {
		return nil, err
	}
	a.client = c
	return a, nil
}

// serve hands commands to the loop and ticks out, until Finish or the end of the
// commands, which is the end of who gave them.
func (a *agent) serve(lines *bufio.Scanner, out io.Writer) {
	commands := make(chan Command) // written and closed by the reader
	quit := make(chan struct{})    // closed here
	defer close(quit)
	go func() {
		defer close(commands)
		for lines.Scan() {
			var c Command
			if json.Unmarshal(lines.Bytes(), &c) != nil {
				return
			}
			select {
			case commands <- c:
			case <-quit:
				return
			}
		}
	}()
	every := time.NewTicker(a.plan.Tick)
	defer every.Stop()
	w := json.NewEncoder(out)
	for {
		select {
		case c, ok := <-commands:
			if !ok {
				return
			}
			a.on(func() { a.do(c) })
			if c.Do == Finish {
				t := a.cut()
				t.Last = true
				_ = w.Encode(t) // who does not read any more needs it no more
				return
			}
		case <-every.C:
			if w.Encode(a.cut()) != nil {
				return
			}
		case <-a.ended:
			return
		}
	}
}

// on runs f on the loop and returns when it has run, or when the loop has ended.
func (a *agent) on(f func()) {
	done := make(chan struct{})
	a.client.Post(func() { f(); close(done) })
	select {
	case <-done:
	case <-a.ended:
	}
}

// cut returns what was counted, and begins a new interval.
func (a *agent) cut() (t Tick) {
	a.on(func() {
		n := a.client.Counts()
		a.counts[tally.Queued] = int64(n.Queued + a.waiting)
		a.counts[tally.Opening] = int64(n.Opening+n.Open) - a.counts[tally.Online]
		a.counts[tally.Pending] = int64(a.sends.pending)
		t = Tick{Counts: a.counts, Times: a.times, Paces: a.paces, Ends: maps.Clone(a.ends), Span: a.span}
		a.times, a.paces = tally.Times{}, tally.Paces{}
	})
	return t
}

func (a *agent) do(c Command) {
	switch c.Do {
	case Open:
		for ; a.opened < min(c.N, len(a.devices)); a.opened++ {
			if a.span.FirstDial == 0 {
				a.span.FirstDial = time.Now().UnixNano()
			}
			// In turn, and not each agent from the first: else that would get more.
			a.devices[a.opened].target = uint16((a.plan.Index*a.plan.Conns + a.opened) % len(a.plan.URLs))
			a.dial(uint32(a.opened))
		}
	case Send:
		a.plays.begin(a.client.Now(), c.Rate, c.Count, a.rnd.Float64())
		a.Woken()
	case Stop:
		a.plays.end()
	case Finish:
		a.plays.end()
		a.counts[tally.Unanswered], a.counts[tally.Missing] = a.sends.audit()
	}
}

// Woken does what is due: reconnects, moves and sends.
func (a *agent) Woken() {
	now := a.client.Now()
	for a.later.Len() > 0 && a.later.first() <= now {
		a.turn(a.later.take())
	}
	a.play(now)
	a.alarm()
}

// alarm sets the Client's clock to what is due next.
func (a *agent) alarm() {
	at := a.plays.next(a.client.Now())
	if a.later.Len() > 0 && (at == 0 || a.later.first() < at) {
		at = a.later.first()
	}
	if at != 0 {
		a.client.WakeAt(at)
	}
}
