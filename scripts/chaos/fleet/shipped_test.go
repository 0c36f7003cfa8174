package fleet_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/nginx"
)

// What is shipped runs: clients talk through nginx, nobody without a key reaches NATS, and
// a node that leaves as a lame duck comes back.
func TestShipped(t *testing.T) {
	t.Parallel()
	nginx.Need(t)
	root, err := checkout.Root()
	must(t, err)
	f := start(t, fleet.Spec{Edges: 1, Workers: 1, NATS: 3, Store: fleet.Store{Kind: fleet.Mongo, Members: 1}, Shipped: filepath.Join(root, "k8s")})
	urls := f.URLs()
	if len(urls) != 1 || !strings.Contains(urls[0], f.Nginx().Public) {
		t.Fatalf("clients connect to %q", urls)
	}
	must(t, f.Nginx().Ready(within(t, 5*time.Second)))
	node := f.Nodes()[2]
	if nc, err := nats.Connect("tls://"+node.Addr, nats.RootCAs(filepath.Join(filepath.Dir(node.Log), "keys", "ca", "ca.crt")), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("somebody without a key is let in")
	} else if !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("without a key: %v", err)
	}
	p := newPair(t, f)
	p.talk(t, within(t, 10*time.Second))
	ctx := within(t, time.Minute)
	exit, err := f.LameDuck(ctx, node)
	if err != nil || exit.Code != 0 {
		t.Errorf("lame duck: %+v, %v", exit, err)
	}
	must(t, node.Start())
	must(t, f.AwaitNATS(ctx))
	must(t, f.ReloadNginx())
	mends(t, f, p)
}
