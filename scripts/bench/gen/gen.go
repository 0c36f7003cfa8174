// Package gen is the load generator of the benchmark, a process of its own
// (`bench load`): it opens connections to one server, and does one job after the other as
// it is told, by a line of JSON on stdin and one on stdout for each.
//
// All of it runs on the one goroutine of a wire.Client. It judges nothing: it counts, and
// it fails when a server does not do what it should.
package gen

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/load/wire"
)

// Options are what a generator is made of.
type Options struct {
	URL     string // of the server, such as ws://127.0.0.1:8081/ws
	Dialect string // how to talk to it: see the constants
	Conns   int    // at most
	Secret  string // of the edge's tokens, for Edge
	NATS    string // where Edge's frames are published, for Fan
	Devices int    // connections of one user, for Edge; 0: 1

	patience time.Duration // 0: the constant; tests have less
}

// Command is one job.
type Command struct {
	Do    string        // Open, Hold, Ask, Chat, Fan or Raw
	N     int           // connections: how many are open afterwards, or take part
	For   time.Duration // how long; the job ends when what is under way is done
	Rate  float64       // messages a second; 0: each connection as soon as it has its answer
	Every time.Duration // of Hold: between two pings of a connection
}

// The jobs.
const (
	Open = "open" // connect, and log in, until N are ready
	Hold = "hold" // ping each of the N connections every Every
	Ask  = "ask"  // messages that the server answers, one under way on each connection
	Chat = "chat" // Ask to a real system: from user to user, the echo is the answer
	Fan  = "fan"  // Rate times a second a message to all N connections
	Raw  = "raw"  // connect N times, and nothing else
)

// Result is what came of a command.
type Result struct {
	Err       string        `json:",omitempty"`
	Count     int           // connections, answers, or deliveries
	Took      time.Duration // from the first to the last
	P50, P99  time.Duration // of Ask and Chat: from the intended time of a message to its answer
	Delivered int           // of Chat: frames that reached recipients
}

// errServer is wrapped by what a server did wrong.
var errServer = errors.New("the server does not play along")

// job is what is under way.
type job interface {
	message(id uint32, b []byte)
	woken()
}

// Generator is the handler of one wire.Client; everything here belongs to its goroutine.
type Generator struct {
	wire.Nop
	opt     Options
	client  *wire.Client
	d       *dialect
	conns   []*wire.Conn // by id; nil: not ready
	ready   int
	job     job
	js      jetstream.JetStream // nil until it is needed
	results chan Result         // one for each command
}

// Run works until stdin ends.
func Run(o Options, in io.Reader, out io.Writer) error {
	d, err := newDialect(o)
	if err != nil {
		return err
	}
	t, err := wire.ParseTarget(o.URL)
	if err != nil {
		return err
	}
	o.patience = cmp.Or(o.patience, patience)
	g := &Generator{opt: o, d: d, conns: make([]*wire.Conn, o.Conns), results: make(chan Result, 1)}
	if g.client, err = wire.New(g, wire.Options{Targets: []wire.Target{t}, Conns: o.Conns}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- g.client.Run() }()
	defer g.client.Stop()
	say := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var c Command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return fmt.Errorf("read command: %w", err)
		}
		g.client.Post(func() { g.start(c) })
		select {
		case r := <-g.results:
			if err := say.Encode(r); err != nil {
				return err
			}
		case err := <-ended:
			return err
		}
	}
	return nil
}

func (g *Generator) start(c Command) {
	if c.N > len(g.conns) || c.Do != Open && c.Do != Raw && c.N > g.ready {
		g.fail(fmt.Errorf("%s with %d connections: %d are ready", c.Do, c.N, g.ready))
		return
	}
	switch c.Do {
	case Open:
		g.open(c)
	case Hold:
		g.hold(c)
	case Ask, Chat:
		g.ask(c)
	case Fan:
		g.fan(c)
	case Raw:
		g.raw(c)
	default:
		g.fail(fmt.Errorf("unknown job %q", c.Do))
	}
}

func (g *Generator) done(r Result) {
	g.job = nil
	g.results <- r
}

func (g *Generator) fail(err error) {
	if g.job = nil; len(g.results) == 0 {
		g.results <- Result{Err: err.Error()}
	}
}

// Header is wire.Handler.
func (g *Generator) Header(c *wire.Conn, b []byte) []byte { return g.d.appendHeader(c.ID(), b) }

// Opened is wire.Handler.
func (g *Generator) Opened(c *wire.Conn) {
	if g.d.hello != "" {
		if err := c.Text([]byte(g.d.hello)); err != nil {
			g.fail(err)
		}
	}
	if !g.d.welcome {
		g.isReady(c)
	}
}

func (g *Generator) isReady(c *wire.Conn) {
	g.conns[c.ID()] = c
	g.ready++
	if o, ok := g.job.(*opening); ok {
		o.more(g)
	}
}

// Message is wire.Handler.
func (g *Generator) Message(c *wire.Conn, _ bool, b []byte) {
	switch {
	case g.conns[c.ID()] == nil:
		g.isReady(c)
	case g.job != nil:
		g.job.message(c.ID(), b)
	}
}

// Woken is wire.Handler.
func (g *Generator) Woken() {
	if g.job != nil {
		g.job.woken()
	}
}

// Closed is wire.Handler.
func (g *Generator) Closed(c *wire.Conn, e wire.End) {
	g.conns[c.ID()] = nil
	g.fail(fmt.Errorf("%w: connection %d ended with %d %q %w", errServer, c.ID(), e.Code, e.Reason, e.Err))
}
