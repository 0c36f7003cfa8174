package security_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// roles of the accounts that hold or reach the system's subjects. admin may do everything
// in its account; the system account holds none of these subjects.
var roles = []string{"edge", "replay", "worker", "monitoring", "admin"}

// rights is who may do what; admin's are left out. Each row is tried by every role in both
// directions.
var rights = []struct{ subject, publish, subscribe string }{
	// Messages.
	{"im.up.0.ann", "edge", ""},
	{"im.up.255.=2A", "edge", ""},
	{"im.up.0.a.b", "", ""},
	{"im.up.0", "", ""},
	{"im.up.>", "", ""},
	{"im.down.0.ann", "worker", ""},
	{"im.down.0.a.b", "", ""},
	{"im.down.>", "", ""},
	{"im.live.0.ann", "worker", "edge"},
	// As subjects to publish these are plain words. That an edge can hear everybody is told in docs/security.md.
	{"im.live.*.*", "worker", "edge"},
	{"im.live.0.>", "worker", "edge"},
	{"im.live.0.a.b", "", ""},
	{"im.live.>", "", ""},
	{"im.mark.0.edge-1", "edge", ""},
	{"im.mark.>", "", ""},
	{"im.dead.0.ann", "worker", ""},
	{"im.dead.>", "", ""},
	{"im.topic.news", "", ""}, // reserved: nobody has rights before it is built
	{"im.app.1000.ann", "", ""},
	{"im.other", "", ""},
	{"im.>", "", ""},
	{"other.0.ann", "", ""},
	{">", "", ""},

	// Inboxes: each role its own.
	{"_INBOX_edge.x.1", "", "edge replay"},
	{"_INBOX_edge.>", "", "edge replay"},
	{"_INBOX_worker.x.1", "", "worker"},
	{"_INBOX_worker.>", "", "worker"},
	{"_INBOX_monitoring.x", "", "monitoring"},
	{"_INBOX.x", "", ""},
	{"_INBOX.>", "", ""},

	// Streams.
	{"$JS.API.INFO", "worker", ""},
	{"$JS.API.STREAM.NAMES", "worker", ""},
	{"$JS.API.STREAM.LIST", "", ""},
	{"$JS.API.STREAM.INFO.UP_0", "worker", ""},
	{"$JS.API.STREAM.CREATE.UP_0", "worker", ""},
	{"$JS.API.STREAM.CREATE.DOWN_4_abc_0", "worker", ""},
	{"$JS.API.STREAM.UPDATE.DEAD", "worker", ""},
	{"$JS.API.STREAM.DELETE.UP_0", "", ""},
	{"$JS.API.STREAM.DELETE.FOREIGN", "", ""},
	{"$JS.API.STREAM.PURGE.UP_0", "", ""},
	{"$JS.API.STREAM.MSG.GET.UP_0", "worker", ""},
	{"$JS.API.STREAM.MSG.DELETE.UP_0", "", ""},
	{"$JS.API.STREAM.SNAPSHOT.UP_0", "", ""},
	{"$JS.API.STREAM.RESTORE.UP_0", "", ""},
	{"$JS.API.STREAM.PEER.REMOVE.UP_0", "", ""},
	{"$JS.API.STREAM.LEADER.STEPDOWN.UP_0", "", ""},
	{"$JS.API.META.LEADER.STEPDOWN", "", ""},
	{"$JS.API.SERVER.REMOVE", "", ""},
	{"$JS.API.ACCOUNT.PURGE.WIREPOST", "", ""},
	{"$JS.API.>", "", ""},

	// Consumers.
	{"$JS.API.CONSUMER.NAMES.UP_0", "worker", ""},
	{"$JS.API.CONSUMER.LIST.UP_0", "", ""},
	{"$JS.API.CONSUMER.INFO.UP_0.work", "worker", ""},
	{"$JS.API.CONSUMER.INFO.UP_0.other", "", ""},
	{"$JS.API.CONSUMER.CREATE.UP_0.work", "worker", ""},
	{"$JS.API.CONSUMER.CREATE.UP_0", "", ""},
	{"$JS.API.CONSUMER.CREATE.UP_0.spy", "", ""},
	{"$JS.API.CONSUMER.CREATE.DOWN_4_abc_0.spy.im.down.>", "", ""},
	{"$JS.API.CONSUMER.DURABLE.CREATE.UP_0.work", "", ""},
	{"$JS.API.CONSUMER.DELETE.UP_0.work", "", ""},
	{"$JS.API.CONSUMER.MSG.NEXT.UP_0.work", "worker", ""},
	{"$JS.API.CONSUMER.MSG.NEXT.UP_0.spy", "", ""},
	{"$JS.API.CONSUMER.RESET.UP_0.work", "worker", ""},
	{"$JS.API.CONSUMER.UNPIN.UP_0.work", "worker", ""},
	{"$JS.API.CONSUMER.PAUSE.UP_0.work", "", ""},
	{"$JS.API.CONSUMER.LEADER.STEPDOWN.UP_0.work", "", ""},
	{"$JS.ACK.UP_0.work.1.1.1.1.0", "worker", ""},
	{"$JS.ACK.hub.ACCOUNT.UP_0.work.1.1.1.1.0.x", "worker", ""},
	{"$JS.ACK.UP_0.spy.1.1.1.1.0", "", ""},
	{"$JS.ACK.>", "", ""},
	{"$JS.EVENT.ADVISORY.API", "", ""},
	{"$JS.EVENT.ADVISORY.>", "", ""},

	// What monitoring has of them.
	{"look.STREAM.NAMES", "monitoring", ""},
	{"look.STREAM.LIST", "monitoring", ""},
	{"look.STREAM.INFO.UP_0", "monitoring", ""},
	{"look.STREAM.DELETE.UP_0", "", ""},
	{"look.STREAM.MSG.GET.UP_0", "", ""},
	{"look.CONSUMER.NAMES.UP_0", "monitoring", ""},
	{"look.CONSUMER.LIST.UP_0", "monitoring", ""},
	{"look.CONSUMER.INFO.UP_0.work", "monitoring", ""},
	{"look.CONSUMER.CREATE.UP_0.spy", "", ""},
	{"look.>", "", ""},

	// Direct gets: the shards for edges, marks and own keys for workers.
	{"$JS.API.DIRECT.GET.DOWN_4_abc_0", "replay", ""},
	{"$JS.API.DIRECT.GET.DEAD", "", ""},
	{"$JS.API.DIRECT.GET.KV_workers", "", ""},
	{"$JS.API.DIRECT.GET.KV_suspects", "", ""},
	{"$JS.API.DIRECT.GET.DOWN_4_abc_0.im.mark.0.edge-1", "worker", ""},
	{"$JS.API.DIRECT.GET.DOWN_4_abc_0.im.down.0.ann", "", ""},
	{"$JS.API.DIRECT.GET.DEAD.im.dead.0.ann", "", ""},
	{"$JS.API.DIRECT.GET.KV_workers.$KV.workers.lease.worker-1", "worker", ""},
	{"$JS.API.DIRECT.GET.KV_suspects.$KV.suspects.0", "worker", ""},

	// The workers' buckets.
	{"$KV.workers.lease.worker-1", "worker", ""},
	{"$KV.workers.lock.streams", "worker", ""},
	{"$KV.workers.other", "", ""},
	{"$KV.suspects.0", "worker", ""},
	{"$KV.other.0", "", ""},
	{"$KV.>", "", ""},
	{"$JS.API.CONSUMER.CREATE.KV_workers.x.$KV.workers.lease.>", "worker", ""},
	{"$JS.API.CONSUMER.CREATE.KV_suspects.x.$KV.suspects.>", "", ""},
	{"$JS.API.CONSUMER.INFO.KV_workers.x", "worker", ""},
	{"$JS.API.CONSUMER.DELETE.KV_workers.x", "worker", ""},
	{"$JS.API.CONSUMER.DELETE.KV_suspects.x", "", ""},
	{"$JS.FC.KV_workers.x.1", "worker", ""},
	{"$JS.FC.hub.ACCOUNT.KV_workers.x.1", "worker", ""},
	{"$JS.FC.KV_suspects.x.1", "", ""},

	// The servers' own.
	{"$SYS.REQ.SERVER.PING", "", ""},
	{"$SYS.>", "", ""},
	{"$NRG.V.x", "", ""},
}

// Each role may do what its rows say, and nothing else.
func TestRights(t *testing.T) {
	c := newCluster(t, 1, nil)
	for _, role := range roles[:len(roles)-1] {
		t.Run(role, func(t *testing.T) {
			nc := c.connect(role)
			for _, r := range rights {
				if got, want := mayPublish(t, nc, r.subject), slices.Contains(strings.Fields(r.publish), role); got != want {
					t.Errorf("%s may publish %s: %v, want %v", role, r.subject, got, want)
				}
				if got, want := maySubscribe(t, nc, r.subject), slices.Contains(strings.Fields(r.subscribe), role); got != want {
					t.Errorf("%s may subscribe %s: %v, want %v", role, r.subject, got, want)
				}
			}
		})
	}
	t.Run("admin", func(t *testing.T) {
		nc := c.connect("admin")
		for _, subject := range []string{"im.up.0.ann", "$JS.API.STREAM.DELETE.UP_0", "$KV.workers.lease.x"} {
			if !mayPublish(t, nc, subject) || !maySubscribe(t, nc, subject) {
				t.Errorf("admin may not use %s", subject)
			}
		}
	})
}

// mayPublish: the server answers a PING after it has refused what came before.
func mayPublish(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	if err := nc.PublishMsg(&nats.Msg{Subject: subject}); err != nil {
		t.Fatalf("publish %s: %v", subject, err)
	}
	return !refused(t, nc, fmt.Sprintf("Publish to %q", subject))
}

func maySubscribe(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		t.Fatalf("subscribe %s: %v", subject, err)
	}
	no := refused(t, nc, fmt.Sprintf("Subscription to %q", subject))
	_ = sub.Unsubscribe() // a refused one is gone already
	return !no
}

func refused(t *testing.T, nc *nats.Conn, what string) bool {
	t.Helper()
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	err := nc.LastError()
	return err != nil && strings.Contains(err.Error(), "Permissions Violation for "+what)
}
