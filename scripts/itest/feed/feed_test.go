package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/natsconn"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// Frames come with their headers, for those who are subscribed and for nobody else.
func TestFrames(t *testing.T) {
	s := start(t, plain)
	pub := answering(t, s.URL())
	w := connect(t, natsconn.Options{URL: s.URL()}, "ann")
	w.frame(t, pub, "ann", "one")
	m := &nats.Msg{Subject: subject.Live(0, userid.MustParse("ann")), Data: []byte("two"), Header: nats.Header{"K": {"v"}}}
	if err := pub.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	if got := await(t, w.got, "a frame with headers"); got != "ann two" {
		t.Errorf("got %q", got)
	}
	w.Subscribe(0, userid.MustParse("a.b*"))
	w.frame(t, pub, "a.b*", "three") // hostile names, too
	w.Unsubscribe(userid.MustParse("ann"))
	w.subscribed(t)
	publish(t, pub, "ann", "nobody is here")
	w.frame(t, pub, "a.b*", "four")
	w.Subscribe(0, userid.MustParse("ann"))
	w.frame(t, pub, "ann", "back")
}

// Subscriptions stand between nats.go's operations, never inside of one, however much both
// write.
func TestBothWrite(t *testing.T) {
	const n = 20_000
	s := start(t, plain)
	pub := answering(t, s.URL())
	w := connect(t, natsconn.Options{URL: s.URL()})
	before := s.Server().NumSubscriptions()
	done := make(chan error)
	go func() {
		var err error
		for i := range n {
			m := &nats.Msg{Subject: "noise", Header: nats.Header{"K": {"v"}}, Data: make([]byte, i%2000)}
			err = errors.Join(err, w.nc.PublishMsg(m))
		}
		done <- err
	}()
	for i := range n {
		w.Subscribe(i%4, userid.MustParse(fmt.Sprint("user-", i)))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.subscribed(t)
	if got := s.Server().NumSubscriptions() - before; got < n { // and the inbox
		t.Errorf("the server knows %d subscriptions, want %d", got, n)
	}
	w.Subscribe(0, userid.MustParse("ann"))
	w.frame(t, pub, "ann", "last")
	if len(w.renewed) > 0 {
		t.Error("the connection was lost on the way")
	}
}

// After a restart of the server everybody is subscribed again before a request is answered.
func TestRestart(t *testing.T) {
	s := start(t, plain)
	pub := answering(t, s.URL())
	w := connect(t, natsconn.Options{URL: s.URL()}, "ann", "bob")
	w.frame(t, pub, "ann", "before")
	s.Shutdown()
	w.log.await(t, "connection lost")
	if _, err := w.Request(t.Context(), "echo"); err == nil {
		t.Error("a request without a server")
	}
	w.Subscribe(0, userid.MustParse("late")) // nothing comes of it: the table says who is here
	w.mu.Lock()
	w.users[userid.MustParse("new")] = 0
	w.mu.Unlock()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, w.renewed, "the second connection")
	w.log.await(t, "reconnected")
	for _, user := range []string{"ann", "bob", "new"} {
		w.frame(t, pub, user, "after")
	}
}

// An answer that comes on another connection than the request went is not believed: who
// asked does not know behind which subscriptions.
func TestRequestOverAReconnect(t *testing.T) {
	s := start(t, plain)
	pub := answering(t, s.URL())
	asked := make(chan *nats.Msg, 1)
	if _, err := pub.ChanSubscribe("later", asked); err != nil {
		t.Fatal(err)
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	proxy := servers.NewProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	w := connect(t, natsconn.Options{URL: "nats://" + proxy.Addr()}, "ann")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := w.Request(ctx, "later")
		answered <- err
	}()
	m := await(t, asked, "the request")
	proxy.Restore() // ends every connection
	await(t, w.renewed, "the second connection")
	w.subscribed(t)
	if err := m.Respond(nil); err != nil {
		t.Fatal(err)
	}
	if err := await(t, answered, "the end of the request"); !errors.Is(err, feed.ErrNotSubscribed) {
		t.Errorf("answered with %v", err)
	}
}

// What the server says of itself is heard: another server of the cluster takes over from
// one that is a lame duck.
func TestLameDuck(t *testing.T) {
	cluster := func(o *server.Options) { o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: -1} }
	a := start(t, func(o *server.Options) { o.ServerName = "a"; cluster(o) })
	b := start(t, func(o *server.Options) {
		o.ServerName = "b"
		cluster(o)
		o.Routes = server.RoutesFromStr("nats://" + a.Server().ClusterAddr().String())
	})
	pub := answering(t, b.URL())
	w := connect(t, natsconn.Options{URL: a.URL()}, "ann")
	w.frame(t, pub, "ann", "by a")
	for end := time.Now().Add(patience); len(w.nc.DiscoveredServers()) == 0; time.Sleep(10 * time.Millisecond) { // nats.go has no signal for the owner of the connection
		if time.Now().After(end) {
			t.Fatal("b is not known")
		}
	}
	id, err := w.nc.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Server().LDMClientByID(id); err != nil {
		t.Fatal(err)
	}
	w.log.await(t, "about to stop")
	a.Shutdown()
	await(t, w.renewed, "the connection to b")
	w.frame(t, pub, "ann", "by b")
	if name := w.nc.ConnectedServerName(); name != "b" {
		t.Errorf("connected to %s", name)
	}
}

// A subscription that is not allowed is told in the log, and harms no other one.
func TestPermissions(t *testing.T) {
	s := start(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "edge", Password: "hunter2", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"im.live.0.>", "_INBOX_edge.>"}}}}, {Username: "pub", Password: "pub"}}
	})
	pub := answering(t, as(s.URL(), "pub:pub"))
	w := connect(t, natsconn.Options{URL: as(s.URL(), "edge:hunter2")}, "ann")
	w.Subscribe(1, userid.MustParse("eve"))
	w.subscribed(t)
	w.log.await(t, "permissions violation for subscription")
	w.frame(t, pub, "ann", "fine")
	if len(w.renewed) > 0 {
		t.Error("the connection was lost")
	}
}

// A reader that stays behind is cut off by the server, and goes on with a new connection.
func TestSlowReader(t *testing.T) {
	s := start(t, func(o *server.Options) { o.MaxPending = 1 << 20 })
	pub := answering(t, s.URL())
	w := connect(t, natsconn.Options{URL: s.URL()}, "ann")
	w.subscribed(t)
	for range cap(w.got) { // the owner is stuck at the next frame
		w.got <- ""
	}
	for range 400 {
		publish(t, pub, "ann", strings.Repeat("x", 100<<10))
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := s.Server().NumSlowConsumers(); n == 0 {
		t.Fatal("the server waits for a reader that is 40 MB behind")
	}
	for again := false; !again; {
		select {
		case <-w.got:
		case <-w.renewed:
			again = true
		case <-time.After(patience):
			t.Fatal("there is no new connection")
		}
	}
	w.subscribed(t)
	publish(t, pub, "ann", "goes on")
	for await(t, w.got, "a frame of the new connection") != "ann goes on" { // behind what was read of the old one
		continue
	}
}

// A server that falls silent is given up.
func TestSilentServer(t *testing.T) {
	s := start(t, plain)
	pub := answering(t, s.URL())
	proxy := servers.NewProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	w := connect(t, natsconn.Options{URL: "nats://" + proxy.Addr()}, "ann")
	w.frame(t, pub, "ann", "before")
	proxy.Cut()
	w.log.await(t, "connection lost")
	proxy.Restore()
	await(t, w.renewed, "the second connection")
	w.frame(t, pub, "ann", "after")
}
