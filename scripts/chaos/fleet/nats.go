package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/scripts/servers"
)

const (
	// nowhere is what nodes tell each other of where they are: whoever is told dials at
	// once, and such a route would go around the proxies.
	nowhere = "127.0.0.1:1"

	adminPing      = time.Second // with two unanswered ones a paused node is given up
	adminReconnect = 100 * time.Millisecond
)

// composeNATS makes the nats-servers. Each reaches each other through a proxy.
func (f *Fleet) composeNATS() error {
	routes := make([]string, f.spec.NATS) // where they listen for each other
	for i := range f.spec.NATS {
		p := f.newProcess(NATS, i)
		if err := addrs(&p.Addr, &p.Admin, &routes[i]); err != nil {
			return err
		}
		p.command.bin = f.spec.Bin.NATS
		p.command.args = []string{"-c", filepath.Join(f.spec.Dir, p.Name+".conf"), "-P", f.pidFile(p)}
		p.probe = func(ctx context.Context) error { return servers.Answers(ctx, "http://"+p.Admin+"/healthz") }
		f.nodes = append(f.nodes, p)
	}
	dials := make([][]string, f.spec.NATS) // what node i dials
	for i, a := range f.nodes {
		for j, b := range f.nodes[:i] {
			l := &Link{A: a, B: b}
			if err := f.connect(l, routes[j], routes[i]); err != nil {
				return err
			}
			dials[i] = append(dials[i], "nats-route://"+l.ways[0].addr())
			dials[j] = append(dials[j], "nats-route://"+l.ways[1].addr())
		}
	}
	if f.spec.Shipped != "" {
		if err := f.makeKeys(); err != nil {
			return err
		}
	}
	for i, p := range f.nodes {
		configure := f.writeConfig
		if f.spec.Shipped != "" {
			configure = f.shipNode
		}
		if err := configure(p, routes[i], dials[i]); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) writeConfig(p *Process, route string, dials []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %q\nlisten: %q\nhttp: %q\n", p.Name, p.Addr, p.Admin)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file_store: 64GB, max_memory_store: 1GB }\n", f.folder(p))
	if len(dials) > 0 {
		fmt.Fprintf(&b, "cluster { name: fleet, listen: %q, advertise: %q, no_advertise: true, pool_size: 1, routes: [ %s ] }\n",
			route, nowhere, strings.Join(quoted(dials), ", "))
	}
	return os.WriteFile(p.command.args[1], []byte(b.String()), 0o600)
}

func quoted(all []string) []string {
	var q []string
	for _, s := range all {
		q = append(q, fmt.Sprintf("%q", s))
	}
	return q
}

// connectNATS makes the fleet's own connection, past the proxies.
func (f *Fleet) connectNATS() error {
	var urls []string
	for _, n := range f.nodes {
		urls = append(urls, f.scheme()+n.Addr)
	}
	signIn, err := f.asAdmin()
	if err != nil {
		return err
	}
	nc, err := nats.Connect(strings.Join(urls, ","), append(signIn, nats.Name("fleet"), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(adminReconnect), nats.ReconnectBufSize(-1),
		nats.PingInterval(adminPing), nats.MaxPingsOutstanding(2), nats.Timeout(adminPing),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		return err
	}
	f.nc = nc
	f.js, err = jetstream.New(nc)
	return err
}

// NATS returns the fleet's own connection, which goes past the proxies and reconnects.
// It is the fleet's: do not close it.
func (f *Fleet) NATS() (*nats.Conn, jetstream.JetStream) { return f.nc, f.js }

// errNotYet is what a poll says of something that has not happened.
var errNotYet = errors.New("not yet")

// errNoLeader is returned when a cluster or a stream has no leader, or not one alone.
var errNoLeader = errors.New("there is no leader")

// AwaitNATS returns when every running node is well, all of them name the same leader of
// JetStream, and the fleet's own connection is up.
func (f *Fleet) AwaitNATS(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range f.nodes {
		if n.Running() {
			g.Go(func() error { return n.Ready(gctx) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return poll(ctx, "the nats-servers agree on a leader", func(ctx context.Context) error {
		leader := ""
		for _, n := range f.nodes {
			if !n.Running() || len(f.nodes) == 1 {
				continue
			}
			name, err := metaLeader(ctx, n)
			if err != nil {
				return err
			}
			if name == "" || leader != "" && leader != name {
				return errNoLeader
			}
			leader = name
		}
		_, err := f.js.AccountInfo(ctx)
		return err
	})
}

// metaLeader is the name of the node that a node takes for the leader of JetStream.
func metaLeader(ctx context.Context, n *Process) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/jsz", nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var z struct {
		Meta struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	if err := json.NewDecoder(res.Body).Decode(&z); err != nil {
		return "", fmt.Errorf("jsz of %s: %w", n.Name, err)
	}
	return z.Meta.Leader, nil
}

// poll asks until the answer is nil, or ctx ends. Each question has a short time.
func poll(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		qctx, cancel := context.WithTimeout(ctx, probeTimeout)
		err := ask(qctx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(pollStep):
		}
	}
}
