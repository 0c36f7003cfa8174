package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/system"
	"github.com/wirepost/wirepost/scripts/usage"
)

// Modes of the command.
const (
	modeIdle      = "idle"
	modeConnect   = "connect"
	modeSelf      = "echo-self"
	modeChat      = "chat"
	modeFanout    = "fanout"
	modeReconnect = "reconnect"
	modeRolling   = "rolling"
)

var modes = []string{modeIdle, modeConnect, modeSelf, modeChat, modeFanout, modeReconnect, modeRolling}

// spareDescriptors of a process are for what is no connection of the load.
const spareDescriptors = 200

// config is what the flags say.
type config struct {
	mode      string
	urls      list
	n         int
	processes int
	steps     []int // numbers of connections at which memory is measured; the last is n

	connecting
	sending

	duration, settle, grace time.Duration

	servers []usage.Group // whose memory and CPU are reported
	crashing
	own ownSystem
	rolling
	json, plot string
}

// connecting is how connections are opened.
type connecting struct {
	connectRate float64 // connections a second; 0: as fast as they are accepted
	inFlight    int     // handshakes at once
	secret      string  // signs tokens; "": tokens are given
	tokens      []string
}

// sending is what is sent.
type sending struct {
	messages float64 // a second
	size     int     // bytes of a body
	devices  int     // of a recipient of fanout
}

// crashing is how the edges of a gateway by URL are killed.
type crashing struct {
	killPIDs []int
	edgeCmds list
}

// rolling is how the edges of an own system are replaced.
type rolling struct {
	nginx     string        // folder of its configuration
	rate      int           // DRAIN_RATE
	notice    time.Duration // DRAIN_NOTICE
	reload    bool          // nginx is reloaded before
	forgetful bool          // clients do not resume
}

// ownSystem is what is started when there is no URL.
type ownSystem struct {
	edges int
	store system.Store
	bin   string
	env   list // of each edge
}

// list is a flag that may be given several times, or with commas.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// raw are flags whose text means something that is worked out later.
type raw struct {
	urls, steps, secret, tokenFile, data, pids, killPIDs, store string
}

func parse(args []string, secretEnv string, out io.Writer) (config, error) {
	var c config
	var r raw
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.mode, "mode", modeChat, strings.Join(modes, ", "))
	f.StringVar(&r.urls, "url", "", "addresses of the gateway, separated by commas, such as ws://127.0.0.1:8081/ws; none: start a system on loopback")
	f.IntVar(&c.n, "n", 1000, "connections")
	f.Float64Var(&c.connectRate, "rate", 0, "connections begun a second; 0: as fast as they are accepted")
	f.IntVar(&c.inFlight, "inflight", 256, "handshakes at once")
	f.IntVar(&c.processes, "processes", 0, "processes of the load; 0: as many as descriptors ask for")
	f.Float64Var(&c.messages, "messages", 200, "messages a second, all together, whatever the gateway does")
	f.IntVar(&c.size, "size", 100, "bytes of a message's body")
	f.IntVar(&c.devices, "devices", 16, "fanout: connections of each recipient")
	f.DurationVar(&c.duration, "duration", 30*time.Second, "how long to hold or to send")
	f.DurationVar(&c.settle, "settle", 10*time.Second, "rest before memory is measured")
	f.DurationVar(&c.grace, "grace", 20*time.Second, "how long to wait for messages after the last was sent")
	f.StringVar(&r.steps, "steps", "", "idle: measure memory at these numbers of connections too, such as 2000,15000")
	f.StringVar(&r.secret, "secret", "", "secret of tokens (HS256); none: "+devkeys.Env+", else that of make run")
	f.StringVar(&r.tokenFile, "token-file", "", "file of tokens, one a line, each of another user, in place of a secret")
	f.StringVar(&r.data, "data", devkeys.Dir, "the data folder of make run, for its secret")
	f.StringVar(&r.pids, "pids", "", "processes of the servers to report on, such as edge=12,13;nats=14")
	f.StringVar(&r.killPIDs, "kill-pids", "", "reconnect: edges to kill, such as 12,13; somebody must start them again")
	f.Var(&c.edgeCmds, "edge", "reconnect: shell command that starts an edge, which is killed and started again; may be given several times")
	f.IntVar(&c.own.edges, "own-edges", 0, "edges of the system that is started; 0: two, or as many as descriptors ask for")
	f.StringVar(&r.store, "own-store", string(system.Auto), "its store: mongo, ferret, or auto")
	f.StringVar(&c.own.bin, "bin", "bin", "folder of its programs: edge, worker, nats-server, ferret")
	f.Var(&c.own.env, "edge-env", "added to the environment of each of its edges, as NAME=value; may be given several times")
	f.StringVar(&c.nginx, "nginx", "k8s/nginx", "rolling: folder of the configuration of nginx")
	f.IntVar(&c.rate, "drain-rate", 500, "rolling: sockets that an edge closes a second")
	f.DurationVar(&c.notice, "drain-notice", 5*time.Second, "rolling: time from SIGTERM to the drain")
	f.BoolVar(&c.reload, "reload", false, "rolling: nginx reads its configuration anew before the first edge goes")
	f.BoolVar(&c.forgetful, "forgetful", false, "clients keep no resume token: shows what one that does not resume misses")
	f.StringVar(&c.json, "json", "", "file for the result as JSON; -: standard output")
	f.StringVar(&c.plot, "plot", "", "file for a chart, .png or .svg")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err := c.interpret(r, secretEnv); err != nil {
		return c, err
	}
	return c, c.check()
}

// interpret works out what the raw flags mean.
func (c *config) interpret(r raw, secretEnv string) (err error) {
	if r.urls != "" {
		c.urls = strings.Split(r.urls, ",")
	}
	if c.steps, err = numbers(r.steps); err != nil {
		return fmt.Errorf("-steps: %w", err)
	}
	if c.killPIDs, err = numbers(r.killPIDs); err != nil {
		return fmt.Errorf("-kill-pids: %w", err)
	}
	if c.servers, err = groups(r.pids); err != nil {
		return fmt.Errorf("-pids: %w", err)
	}
	c.own.store = system.Store(r.store)
	c.steps = slices.DeleteFunc(c.steps, func(n int) bool { return n >= c.n })
	c.steps = append(c.steps, c.n)
	slices.Sort(c.steps)
	if r.tokenFile != "" {
		b, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return fmt.Errorf("-token-file: %w", err)
		}
		c.tokens = strings.Fields(string(b))
		return nil
	}
	if c.secret = r.secret; c.secret != "" || len(c.urls) == 0 {
		return nil // an own system has its own
	}
	secret, err := devkeys.Choose(secretEnv, r.data)
	c.secret = string(secret)
	return err
}

func (c *config) check() error {
	switch {
	case !slices.Contains(modes, c.mode):
		return fmt.Errorf("-mode %q: must be one of %s", c.mode, strings.Join(modes, ", "))
	case c.n < 1 || c.steps[0] < 1:
		return errors.New("-n and -steps: must be positive")
	case c.size < 32 || c.size > 64<<10:
		return fmt.Errorf("-size %d: must be 32 to 65536", c.size)
	case c.messages <= 0 || c.connectRate < 0 || c.inFlight < 1 || c.duration < 0:
		return errors.New("-messages, -inflight, -rate and -duration: must not be negative or nothing")
	case c.mode == modeFanout && (c.devices < 1 || c.devices > agent.MaxDevices):
		return fmt.Errorf("-devices %d: must be 1 to %d", c.devices, agent.MaxDevices)
	case len(c.tokens) > 0 && len(c.urls) == 0:
		return errors.New("-token-file needs -url")
	case c.plot != "" && filepath.Ext(c.plot) != ".png" && filepath.Ext(c.plot) != ".svg":
		return fmt.Errorf("-plot %s: must end in .png or .svg", c.plot)
	case c.mode == modeReconnect && len(c.urls) > 0 && len(c.killPIDs) == 0 && len(c.edgeCmds) == 0:
		return errors.New("-mode reconnect with -url needs -kill-pids or -edge")
	case c.mode == modeRolling && len(c.urls) > 0:
		return errors.New("-mode rolling replaces the edges of a system of its own: it takes no -url")
	case c.rate < 1 || c.notice < 0:
		return errors.New("-drain-rate and -drain-notice: must not be negative or nothing")
	}
	return c.shareOut()
}

// shareOut chooses the number of processes, and of edges of an own system.
func (c *config) shareOut() error {
	most := descriptors() - spareDescriptors
	if c.processes == 0 {
		c.processes = (c.n + most - 1) / most
	}
	if each := (c.n + c.processes - 1) / c.processes; each > most {
		return fmt.Errorf("-processes %d: each would need %d descriptors and may have %d", c.processes, each, most)
	}
	if c.own.edges == 0 {
		const edgeSpare = 1000 // of an edge: its own limit leaves 512 for other things
		c.own.edges = max(2, (c.n+most-edgeSpare-1)/(most-edgeSpare))
		if c.mode == modeRolling {
			c.own.edges++ // one is away
		}
	}
	return nil
}

func descriptors() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return int(min(r.Max, 1<<20)) // Go raises the soft limit to the hard one
}

func numbers(text string) (all []int, err error) {
	for _, s := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// groups reads "edge=12,13;nats=14"; processes without a name are "server".
func groups(text string) (all []usage.Group, err error) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' }) {
		name, pids, named := strings.Cut(part, "=")
		if !named {
			name, pids = "server", part
		}
		g := usage.Group{Name: name}
		if g.PIDs, err = numbers(pids); err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return all, nil
}
