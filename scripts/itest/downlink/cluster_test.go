package downlink

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// follower returns a node that does not lead the user's stream, and one that does.
func follower(t *testing.T, c *servers.NATSCluster, js jetstream.JetStream, user string) (f, l int) {
	t.Helper()
	name := downName(t, js, user)
	eventually(t, "a leader", func() bool { _, l = c.Leader(name); return l >= 0 })
	return (l + 1) % len(c.Nodes), l
}

// [r] The marker: logins while frames are published lose none, on a cluster where the
// edge's server is not the stream's leader.
func TestLoginsWhileFramesArePublished(t *testing.T) {
	const logins, inFlight = 2500, 100
	c := servers.Cluster(t)
	js := ensure(t, c.Nodes[0].Conn(t), layout(3))
	f, _ := follower(t, c, js, "u0")
	e := newEdge(t, c.Nodes[f].URL())
	pub, err := jetstream.New(c.Nodes[(f+1)%3].Conn(t), jetstream.WithPublishAsyncMaxPending(64))
	if err != nil {
		t.Fatal(err)
	}

	// The clock of the test: frame i of a user is published when its login begins; the
	// token of every login is the position at which the stream began.
	anchors := map[string]string{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	for _, user := range []string{"anchor-a", "anchor-b", "anchor-c", "anchor-d", "anchor-e"} {
		r := e.login(t, user, "")
		anchors[shardOf(r.token().String())] = r.token().String()
	}
	if len(anchors) != shards {
		t.Fatalf("anchors of %d shards", len(anchors))
	}
	began := time.Now()
	rs := make([]*receiver, logins)
	for i := range rs {
		slots <- struct{}{}
		user := fmt.Sprint("u", i)
		u := userid.MustParse(user)
		shard := subject.Shard(u, shards)
		subj := subject.Down(shard, u)
		wg.Go(func() {
			defer func() { <-slots }()
			for k := range 4 {
				if err := store(t.Context(), pub, subj, fmt.Sprint(k)); err != nil {
					t.Error(err)
				}
			}
		})
		rs[i] = e.attach(user, anchors[fmt.Sprint(shard)])
	}
	wg.Wait()
	lost := 0
	for _, r := range rs {
		r.until(t, "attached", func() bool { return r.has("attached") })
		if !r.resumed() {
			t.Fatalf("%s was not resumed", r.user)
		}
	}
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		lost = 0
		for _, r := range rs {
			if !slices.Equal(r.frames(), []string{"0", "1", "2", "3"}) {
				lost++
			}
		}
		if lost == 0 || time.Now().After(end) {
			break
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d logins did not get exactly their frames", lost, logins)
	}
	t.Logf("%d logins in %v; markers %v, gaps %v, stale answers %v", logins, time.Since(began).Round(time.Millisecond),
		js.Conn().NumSubscriptions(), e.count(t, "gaps_total"), e.count(t, "stale_answers_total"))
}

func store(ctx context.Context, js jetstream.JetStream, subj, id string) error {
	_, err := js.Publish(ctx, subj, fmt.Appendf(nil, `{"id":%q}`, id))
	return err
}

// [r] The sweep: a route between the stream's leader and the edge's server is cut for
// less than a second. Live frames vanish without a sign; the sweep finds the last ones.
func TestSweepAfterACutRoute(t *testing.T) {
	const users = 200
	c := servers.Cluster(t)
	js := ensure(t, c.Nodes[0].Conn(t), layout(3))
	f, l := follower(t, c, js, "u0")
	e := newEdge(t, c.Nodes[f].URL(), sweepEvery(time.Second))
	shard := subject.Shard(userid.MustParse("u0"), shards)
	var rs []*receiver
	for i := 0; len(rs) < users; i++ {
		if user := fmt.Sprint("u", i); subject.Shard(userid.MustParse(user), shards) == shard {
			rs = append(rs, e.login(t, user, ""))
		}
	}
	lead, err := jetstream.New(c.Nodes[l].Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	restore := c.Cut(f, l)
	cut := time.Now()
	for _, r := range rs {
		publish(t, lead, r.user.Raw(), "1")
	}
	restore()
	t.Logf("the route was cut for %v", time.Since(cut).Round(time.Millisecond))
	for _, r := range rs {
		r.untilFrames(t, "1")
	}
	if n := e.count(t, "swept_behind_total"); n == 0 {
		t.Error("nothing was lost on the way: the test proves nothing")
	}
	if n := e.count(t, "gaps_total"); n != 0 {
		t.Errorf("%v gaps: there was no frame behind the lost ones", n)
	}
}
