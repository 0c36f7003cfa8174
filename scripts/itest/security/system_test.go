package security_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// unused are rights that TestSystem does not come to need, and why they are there.
var unused = map[string]string{
	"$JS.API.STREAM.MSG.GET.*":           "asked where two owners acknowledged in turns: scripts/itest/lane/hold_test.go",
	"$JS.API.CONSUMER.NAMES.*":           "asked when another consumer is in a lane: scripts/itest/streams",
	"$JS.ACK.*.*.*.work.>":               "how servers to come write what $JS.ACK.*.work.> is today",
	"$JS.API.CONSUMER.INFO.KV_workers.*": "asked by nats.go when a watch heard nothing for long",
	"$JS.FC.KV_workers.>":                "answered by nats.go when a watch brings very much at once",
	"$JS.FC.*.*.KV_workers.>":            "the same, as servers to come write it",
}

// The whole system works under the shipped rights: from nothing, over everything that
// makes edges and workers ask for something else than usual. No server says no once, and
// no right is there that nobody needs.
func TestSystem(t *testing.T) {
	c := newCluster(t, 3, nil)
	s := newSystem(c, servers.Mongo(t))
	js := s.admin()
	s.live(js)

	if no := c.watch.refusals(); len(no) > 0 {
		t.Errorf("the servers refused, or failed:\n%s", strings.Join(no, "\n"))
	}
	for line := range strings.Lines(s.logs.String()) {
		if low := strings.ToLower(line); strings.Contains(low, "violation") || strings.Contains(low, "authorization") {
			t.Errorf("an edge or a worker was refused: %s", line)
		}
	}
	o := c.options(0)
	for _, role := range []string{"edge", "replay", "worker"} {
		c.checkUse(role, o)
	}
}

// live is the system's life.
func (s *system) live(js jetstream.JetStream) {
	first := s.worker("worker-1", nil) // makes the streams
	one, two := s.edge("edge-1"), s.edge("edge-2")
	ann, bob := s.person("ann", one), s.person("bob", two)
	ann.send("bob", 5)
	bob.await(5)
	s.history(bob, 5)

	bob.awaitSynced() // he has a token from here on
	bob.stop()        // and comes back elsewhere to what he missed
	ann.send("bob", 3)
	bob.move(one)
	bob.await(8)
	if !bob.resumed {
		s.t.Error("bob did not resume")
	}

	second := s.worker("worker-2", nil) // takes a lane over that is released
	ann.send("bob", 3)
	first.kill() // and one that is not
	ann.send("bob", 3)
	second.kill() // comes back under its name, and ends its own pins
	second = s.worker("worker-2", nil)
	ann.send("bob", 3)
	bob.await(17)

	s.operate(js)
	ann.send("bob", 3)
	bob.await(20)

	second.terminate() // releases, and comes back with other limits
	s.worker("worker-2", map[string]string{"UPLINK_MAX_BYTES": "67108864", "DOWNLINK_MAX_AGE": "5m"})
	s.bury(js)
	ann.send("bob", 2)
	bob.await(22)
	ann.stop()
	bob.stop()
	two.stop()
	one.stop()
}

func (s *system) admin() jetstream.JetStream {
	s.t.Helper()
	js, err := jetstream.New(s.connect("admin"))
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}

func (s *system) history(p *person, n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	page, err := p.c.History(ctx, "", protocol.HistoryRequest{ConvID: p.got[0].ConvID, Limit: protocol.MaxPage})
	if err != nil || len(page.Messages) != n {
		s.t.Errorf("history of %s: %d messages, %v; want %d", p.user, len(page.Messages), err, n)
	}
}

// operate is an operator who deletes what the workers need: consumers, a shard, a bucket.
// It returns when they are there again.
func (s *system) operate(js jetstream.JetStream) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	shard, err := js.StreamNameBySubject(ctx, subject.DownShard(0))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, lane := range []int{0, 1} {
		if err := js.DeleteConsumer(ctx, stream.Up(lane), stream.Consumer); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, name := range []string{shard, stream.Dead, "KV_" + stream.Suspects} {
		if err := js.DeleteStream(ctx, name); err != nil {
			s.t.Fatal(err)
		}
	}
	var missing error
	s.t.Cleanup(func() {
		if missing != nil {
			s.t.Logf("the last look at what was deleted: %v", missing)
		}
	})
	eventually(s.t, "the workers have repaired", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second) // what a deleted leader owes does not come
		defer cancel()
		_, e1 := js.Consumer(ctx, stream.Up(0), stream.Consumer)
		_, e2 := js.Consumer(ctx, stream.Up(1), stream.Consumer)
		name, e3 := js.StreamNameBySubject(ctx, subject.DownShard(0))
		_, e4 := js.KeyValue(ctx, stream.Suspects)
		_, e5 := js.Stream(ctx, stream.Dead)
		missing = errors.Join(e1, e2, e3, e4, e5)
		return missing == nil && name != shard
	})
}

// bury sends what no worker can read, and waits until it is in the dead stream.
func (s *system) bury(js jetstream.JetStream) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := js.Publish(ctx, subject.Up(0, userid.MustParse("ann")), []byte("no event")); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the message is dead", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		dead, err := js.Stream(ctx, stream.Dead)
		return err == nil && dead.CachedInfo().State.Msgs > 0
	})
}

// checkUse: each of the role's rights was used, but for those that say why not.
func (c *cluster) checkUse(role string, o *server.Options) {
	c.t.Helper()
	used := c.watch.usedBy(role)
	if len(used) == 0 {
		c.t.Errorf("nothing was seen of %s", role)
	}
	p := c.permissions(role, o)
	for what, patterns := range map[string][]string{"publish ": p.Publish.Allow, "subscribe ": p.Subscribe.Allow} {
		for _, pattern := range patterns {
			needed := slices.ContainsFunc(used, func(u string) bool {
				subject, ok := strings.CutPrefix(u, what)
				return ok && server.SubjectMatchesFilter(subject, pattern)
			})
			switch why, told := unused[pattern]; {
			case !needed && !told:
				c.t.Errorf("%s may %s%s and never does", role, what, pattern)
			case needed && told:
				c.t.Errorf("%s does %s%s, which the list of unused rights has (%s)", role, what, pattern, why)
			}
		}
	}
}

// permissions of a role, as the parser read them.
func (c *cluster) permissions(role string, o *server.Options) *server.Permissions {
	c.t.Helper()
	public := publicKey(c.t, c.keys.Seed(role))
	for _, u := range o.Nkeys {
		if u.Nkey == public {
			return u.Permissions
		}
	}
	c.t.Fatalf("the configuration has no user %s", role)
	return nil
}
