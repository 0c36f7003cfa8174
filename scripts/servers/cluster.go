package servers

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	clusterSize = 3

	// nowhere is what nodes tell each other of where they are. nats-server always tells
	// (NoAdvertise is about clients), and who is told dials at once: such a route would
	// go around the proxies, and no Cut or Delay would reach it.
	nowhere = "127.0.0.1:1"
)

// NATSCluster is three nats-servers that form one JetStream cluster. Every route between
// two of them runs through a proxy of its own, which a test can cut.
type NATSCluster struct {
	Nodes  []*NATSServer
	routes [clusterSize][clusterSize]*Proxy // what a node dials to reach another
}

// Cluster starts a cluster, ready for streams with three replicas. It is shut down at
// the test's end.
func Cluster(t testing.TB) *NATSCluster {
	t.Helper()
	c := &NATSCluster{}
	for i := range c.routes {
		for j := range c.routes {
			if i != j {
				c.routes[i][j] = NewProxy(t, "")
			}
		}
	}
	for i := range c.routes {
		c.Nodes = append(c.Nodes, c.start(t, i))
	}
	c.Await(t)
	return c
}

// start starts node i. Its route port is the system's choice at the first start and
// stays the same: a port chosen before might be anybody's by then.
func (c *NATSCluster) start(t testing.TB, i int) *NATSServer {
	t.Helper()
	var routes []*url.URL
	for _, p := range c.routes[i] {
		if p != nil {
			routes = append(routes, &url.URL{Scheme: "nats-route", Host: p.Addr()})
		}
	}
	name, port := fmt.Sprintf("n%d", i), server.RANDOM_PORT
	n := NATS(t, func(o *NATSOptions) {
		o.Log = testLog(t, name)
		o.Tune = func(o *server.Options) {
			o.ServerName, o.Routes = name, routes
			o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port, Advertise: nowhere, PoolSize: 1, NoAdvertise: true}
		}
	})
	port = n.Server().ClusterAddr().Port
	for j := range c.routes {
		if p := c.routes[j][i]; p != nil {
			p.To(n.Server().ClusterAddr().String())
		}
	}
	return n
}

// Await waits until the nodes that run are one cluster. The server has no signal for it.
func (c *NATSCluster) Await(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(readyTimeout); !Clustered(c.Nodes); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the nats-servers are no cluster")
		}
	}
}

// Clustered reports whether those of the nodes that run know each other and follow one
// leader, and it has heard of each what it has room for: before, it places no stream there.
func Clustered(nodes []*NATSServer) bool {
	up, led, current, placeable := 0, 0, 0, 0
	for _, n := range nodes {
		if n.srv == nil {
			continue
		}
		up++
		if n.srv.JetStreamIsLeader() {
			led++
			placeable = len(n.srv.JetStreamClusterPeers())
		}
		if n.srv.JetStreamIsCurrent() {
			current++
		}
	}
	for _, n := range nodes {
		if n.srv != nil && n.srv.NumRoutes() < up-1 {
			return false
		}
	}
	return led == 1 && current == up && placeable == up
}

// Leader returns the node that leads a stream, and its index, or nil and -1.
func (c *NATSCluster) Leader(stream string) (*NATSServer, int) {
	for i, n := range c.Nodes {
		if n.srv != nil && n.srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
			return n, i
		}
	}
	return nil, -1
}

// Cut makes the routes between nodes i and j swallow everything without a sign, until
// restore closes them: the nodes then dial each other again, and what was on the way is
// gone for good.
func (c *NATSCluster) Cut(i, j int) (restore func()) {
	pair := [2]*Proxy{c.routes[i][j], c.routes[j][i]}
	for _, p := range pair {
		p.Cut()
	}
	return func() {
		for _, p := range pair {
			p.Restore()
		}
	}
}

// Delay makes the routes of node i slow, each connection by another random time up to
// most. What the node gets to know, and what others get to know of it, is late.
func (c *NATSCluster) Delay(i int, most time.Duration) {
	for j := range c.Nodes {
		if i != j {
			c.routes[i][j].Delay(most)
			c.routes[j][i].Delay(most)
		}
	}
}
