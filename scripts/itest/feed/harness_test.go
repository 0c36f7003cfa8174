// Package feed tests edge/feed against nats-server, over natsconn, as the edge uses both.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/natsconn"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner does with a feed what a hub of the downlink does.
type owner struct {
	*feed.Feed
	nc  *nats.Conn
	log *lines
	got chan string // "user data", written by run, read by the test; has room for all of a test

	mu      sync.Mutex
	users   map[userid.ID]int // to their shard
	renewed chan struct{}     // after each Renew; has room for all of a test
}

// connect starts an owner with users.
func connect(t *testing.T, o natsconn.Options, users ...string) *owner {
	t.Helper()
	w := &owner{got: make(chan string, 100_000), users: map[userid.ID]int{}, renewed: make(chan struct{}, 1000), log: newLines()}
	connected := make(chan struct{}, 1000)
	for _, u := range users {
		w.users[userid.MustParse(u)] = 0
	}
	w.Feed = feed.New(func() { connected <- struct{}{} })
	o.Name, o.Log, o.InboxPrefix = "test", slog.New(w.log), stream.EdgeInbox
	err := w.Connect(func(wrap func(net.Conn) net.Conn) (nc *nats.Conn, err error) {
		o.Wrap = wrap
		w.nc, err = natsconn.Connect(t.Context(), o)
		return w.nc, err
	})
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case b := <-w.Batches():
				for i := range b.Frames {
					_, user, _ := subject.CutLive(b.Frames[i].Subject)
					w.got <- fmt.Sprintf("%s %s", user, b.Frames[i].Data)
				}
				b.Release()
			case <-connected:
				w.Renew(w.everybody)
				w.renewed <- struct{}{}
			case <-end:
				return
			}
		}
	}()
	t.Cleanup(func() { w.Close(); close(end); <-ended })
	await(t, w.renewed, "the first connection")
	return w
}

func (w *owner) everybody(yield func(int, userid.ID) bool) {
	w.mu.Lock()
	users := maps.Clone(w.users)
	w.mu.Unlock()
	for user, shard := range users {
		if !yield(shard, user) {
			return
		}
	}
}

// subscribed waits until the server knows of all subscriptions.
func (w *owner) subscribed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		data, err := w.Request(ctx, "echo")
		if err == nil && string(data) == "echo" {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("no answer: %q, %v", data, err)
		}
	}
}

// frame publishes a frame for a user and waits until it comes.
func (w *owner) frame(t *testing.T, pub *nats.Conn, user, data string) {
	t.Helper()
	w.subscribed(t)
	publish(t, pub, user, data)
	if got := await(t, w.got, "a frame"); got != userid.MustParse(user).Token()+" "+data {
		t.Fatalf("got %q, want %s for %s", got, data, user)
	}
}

func publish(t *testing.T, pub *nats.Conn, user, data string) {
	t.Helper()
	if err := pub.Publish(subject.Live(0, userid.MustParse(user)), []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// answering returns a connection that answers requests to "echo".
func answering(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond([]byte("echo")) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return nc
}

func start(t *testing.T, tune func(*server.Options)) *servers.NATSServer {
	t.Helper()
	return servers.NATS(t, func(o *servers.NATSOptions) {
		o.Tune = func(so *server.Options) {
			so.JetStream = false
			tune(so)
		}
	})
}

func plain(*server.Options) {}

// as puts credentials into a URL.
func as(url, who string) string { return strings.Replace(url, "://", "://"+who+"@", 1) }

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("not reached")
	}
}

// lines is a log that a test waits on.
type lines struct {
	slog.Handler
	c chan string // written by the logger, read by await; has room for a test's lines
}

func newLines() *lines { return &lines{slog.DiscardHandler, make(chan string, 1000)} }

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.c <- text
	return nil
}

func (l *lines) await(t *testing.T, part string) {
	t.Helper()
	for {
		if strings.Contains(strings.ToLower(await(t, l.c, "the log line "+part)), part) {
			return
		}
	}
}
