package servers

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Every route runs through a proxy, also when two nodes hear of each other by the third
// before their proxies let them meet.
func TestClusterRoutesAreProxied(t *testing.T) {
	c := Cluster(t)
	restore := c.Cut(1, 2)
	if err := c.Nodes[2].Restart(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(readyTimeout); !sees(t, c.Nodes[0], "n2"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("n0 and n2 did not meet")
		}
	}
	restore()
	c.Await(t)
	for i, n := range c.Nodes {
		for _, r := range routes(t, n) {
			for j, other := range c.Nodes {
				if r.Port == other.Server().ClusterAddr().Port {
					t.Errorf("n%d dialed n%d without a proxy", i, j)
				}
			}
		}
	}
}

func sees(t *testing.T, n *NATSServer, name string) bool {
	t.Helper()
	for _, r := range routes(t, n) {
		if r.RemoteName == name {
			return true
		}
	}
	return false
}

func routes(t *testing.T, n *NATSServer) []*server.RouteInfo {
	t.Helper()
	z, err := n.Server().Routez(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.Routes
}
