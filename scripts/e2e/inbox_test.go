package e2e

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
)

// Each role listens for its answers below a prefix of its own (shared/NATS.md, section 6).
func TestInboxesOfRoles(t *testing.T) {
	s := start(t, servers.Ferret(t))
	z, err := s.nats.Server().Connz(&server.ConnzOptions{Subscriptions: true})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range z.Conns {
		own := stream.EdgeInbox
		if strings.HasPrefix(c.Name, "worker-") {
			own = stream.WorkerInbox
		}
		for _, sub := range c.Subs {
			if !strings.HasPrefix(sub, "_INBOX") {
				continue
			}
			found[own] = true
			if !strings.HasPrefix(sub, own+".") {
				t.Errorf("%s subscribes %s, not below %s", c.Name, sub, own)
			}
		}
	}
	if len(found) != 2 {
		t.Errorf("inboxes of %v alone", found)
	}
}
