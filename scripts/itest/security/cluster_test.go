package security_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
	"github.com/wirepost/wirepost/scripts/servers"
)

const (
	shipped  = "../../../k8s/nats"
	patience = 30 * time.Second // for what has no other bound
)

// cluster is one or more nodes with the shipped configuration and keys of their own.
type cluster struct {
	t     testing.TB
	keys  setup.Dir
	conf  string // of all nodes
	nodes []*servers.NATSServer
	watch *watch
}

// newCluster makes keys with the tool and starts n nodes. edit changes the shipped text
// of a file before it is loaded; nil: nothing is changed.
func newCluster(t testing.TB, n int, edit func(file, text string) string) *cluster {
	t.Helper()
	c := &cluster{t: t, keys: setup.Dir(t.TempDir()), watch: &watch{used: map[string]map[string]bool{}}}
	if err := c.keys.Init([]string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	c.conf = c.install(edit)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.watch.tail())
		}
	})
	var routes []*servers.Proxy // to each node, whose port is known when it runs
	for range n {
		routes = append(routes, servers.NewProxy(t, ""))
	}
	for i := range n {
		var others []string
		for j, p := range routes {
			if j != i {
				others = append(others, p.Addr())
			}
		}
		node := c.start(i, others...)
		c.nodes = append(c.nodes, node)
		if n > 1 {
			routes[i].To(node.Server().ClusterAddr().String())
		}
	}
	c.awaitLeader()
	return c
}

// install copies the configuration, its keys and its certificates to where it expects
// them, below a folder of the test's instead of /etc/nats.
func (c *cluster) install(edit func(file, text string) string) string {
	c.t.Helper()
	etc := c.t.TempDir()
	put := func(from, to string, change func(string) string) {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(etc, to)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(etc, to), []byte(change(string(text))), 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	for _, file := range []string{"nats.conf", "accounts.conf"} {
		put(filepath.Join(shipped, file), file, func(text string) string {
			if edit != nil {
				text = edit(file, text)
			}
			return strings.ReplaceAll(text, "/etc/nats/", etc+"/")
		})
	}
	same := func(text string) string { return text }
	put(filepath.Join(string(c.keys), setup.KeysFile), "nkeys/"+setup.KeysFile, same)
	for _, file := range []string{"tls.crt", "tls.key", "ca.crt"} {
		put(filepath.Join(string(c.keys), "nats-server", file), "tls/"+file, same)
	}
	return filepath.Join(etc, "nats.conf")
}

// options are the shipped ones of node i.
func (c *cluster) options(i int) *server.Options {
	c.t.Helper()
	if err := os.Setenv("POD_NAME", fmt.Sprintf("nats-%d", i)); err != nil { // read by the parser, now
		c.t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(c.conf)
	if err != nil {
		c.t.Fatalf("the shipped configuration: %v", err)
	}
	return o
}

// local is node i of this machine: what differs from the shipped options is where it
// listens, where its store is, and where the others are.
func (c *cluster) local(i, port int, store string, routes ...string) *server.Options {
	c.t.Helper()
	o := c.options(i)
	o.Host, o.Port, o.StoreDir, o.NoSigs, o.PidFile = "127.0.0.1", port, store, true, ""
	o.HTTPHost, o.HTTPPort = "127.0.0.1", server.RANDOM_PORT
	o.Cluster.Host, o.Cluster.Port, o.Routes = "127.0.0.1", server.RANDOM_PORT, nil
	for _, r := range routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: r})
	}
	if len(routes) == 0 {
		o.Cluster = server.ClusterOpts{}
	}
	return o
}

func (c *cluster) start(i int, routes ...string) *servers.NATSServer {
	c.t.Helper()
	o := servers.NATSOptions{StoreDir: c.t.TempDir(), Log: c.watch}
	o.Tune = func(base *server.Options) { *base = *c.local(i, base.Port, base.StoreDir, routes...) }
	s, err := servers.StartNATS(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(s.Shutdown)
	s.Server().SetLoggerV2(c.watch, false, true, false) // each operation of a client is seen
	return s
}

// awaitLeader waits until JetStream can place streams on all nodes.
func (c *cluster) awaitLeader() {
	c.t.Helper()
	if len(c.nodes) == 1 {
		return
	}
	eventually(c.t, "the nodes are a cluster", func() bool { return servers.Clustered(c.nodes) })
}

// url is the NATS_URL of clients.
func (c *cluster) url() string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.URL())
	}
	return strings.Join(all, ",")
}

// seed signs in with the seed in a file.
func seed(t testing.TB, file string) nats.Option {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return nats.Nkey(public, pair.Sign)
}

// inbox is the prefix of the role's inbox.
func inbox(role string) string {
	switch role {
	case "replay":
		return "_INBOX_edge"
	case "admin", "system":
		return "_INBOX"
	}
	return "_INBOX_" + role
}

// connect is a connection of a role, closed at the test's end.
func (c *cluster) connect(role string) *nats.Conn {
	c.t.Helper()
	nc, err := nats.Connect(c.url(), nats.Name(role), nats.RootCAs(c.keys.CA()), seed(c.t, c.keys.Seed(role)),
		nats.CustomInboxPrefix(inbox(role)), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		c.t.Fatalf("connect as %s: %v", role, err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// eventually polls what gives no signal.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("%v passed and it is not so: %s", patience, what)
		}
	}
}
