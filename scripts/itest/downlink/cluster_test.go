package downlink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/edge/downlink"
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

// [r] The marker: logins while frames are published lose none, though the edge's server
// is no leader, hears late of everything, and tells others late of its subscriptions.
func TestLoginsOnASlowServer(t *testing.T) {
	c := servers.Cluster(t)
	js := ensure(t, c.Nodes[0].Conn(t), layout(3))
	f, l := follower(t, c, js, "u0")
	c.Delay(f, 10*time.Millisecond)
	e := newEdge(t, c.Nodes[f].URL())
	logins(t, e, c.Nodes[l].Conn(t))
}

// [r] The marker again: replays are answered by a replica that is behind.
func TestLoginsWithAStaleReplica(t *testing.T) {
	c := servers.Cluster(t)
	js := ensure(t, c.Nodes[0].Conn(t), layout(3))
	f, l := follower(t, c, js, "u0")
	slow := 3 - f - l
	c.Delay(slow, 30*time.Millisecond)
	e := newEdge(t, c.Nodes[f].URL(), func(cfg *downlink.Config) {
		near, far := dial(c.Nodes[f].URL()), dial(c.Nodes[slow].URL())
		cfg.Dial = func(ctx context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error) {
			if strings.HasPrefix(name, "replay") {
				return far(ctx, name, wrap)
			}
			return near(ctx, name, wrap)
		}
	})
	logins(t, e, c.Nodes[l].Conn(t))
	if e.count(t, "stale_answers_total") == 0 {
		t.Error("no replica was ever behind: the test proves nothing")
	}
}

// logins resumes 1,250 users from a position before their first frame while their frames
// are published by nc, the last one some milliseconds into the login, and expects each
// frame once and in order. There is no sweep and no later frame that would find a loss.
func logins(t *testing.T, e *edge, nc *nats.Conn) {
	const users, inFlight = 1250, 50
	pub, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]string{} // of each shard, a position before the first frame
	for i := 0; len(anchors) < shards; i++ {
		r := e.login(t, fmt.Sprint("anchor", i), "")
		anchors[shardOf(r.token().String())] = r.token().String()
	}
	began := time.Now()
	rs := make([]*receiver, users)
	var wg sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	want := []string{"0", "1"}
	for i := range rs {
		slots <- struct{}{}
		u := userid.MustParse(fmt.Sprint("u", i))
		shard := subject.Shard(u, shards)
		r := e.attach(u.Raw(), anchors[fmt.Sprint(shard)])
		rs[i] = r
		wg.Go(func() {
			defer func() { <-slots }()
			for _, id := range want {
				time.Sleep(rand.N(15 * time.Millisecond)) // some moment of the login, which has no signal to wait for
				if _, err := pub.Publish(t.Context(), subject.Down(shard, u), fmt.Appendf(nil, `{"id":%q}`, id)); err != nil {
					t.Error(err)
				}
			}
			<-r.settled
		})
	}
	wg.Wait()
	lost := func() (n int) {
		for _, r := range rs {
			if !slices.Equal(r.frames(), want) {
				n++
			}
		}
		return n
	}
	for _, r := range rs {
		r.until(t, "attached", func() bool { return r.has("attached") })
		if !r.resumed() {
			t.Fatalf("%s was not resumed", r.user)
		}
	}
	for end := time.Now().Add(5 * time.Second); lost() > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) // frames are on their way; nothing says that none is
	}
	if n := lost(); n > 0 {
		t.Errorf("%d of %d logins did not get exactly their frames", n, users)
	}
	t.Logf("%d logins in %v, gaps %v, stale answers %v", users, time.Since(began).Round(time.Millisecond),
		e.count(t, "gaps_total"), e.count(t, "stale_answers_total"))
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
