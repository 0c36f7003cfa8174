// Package natsconn_test holds the tests of shared/natsconn against a real nats-server.
package natsconn_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/natsconn"
	"github.com/wirepost/wirepost/shared/stream"
)

const patience = 20 * time.Second

// lines is a log that a test waits on.
type lines struct {
	slog.Handler
	c chan string // written by the logger, read by await; has room for a test's lines
}

func newLog() (*slog.Logger, *lines) {
	l := &lines{slog.DiscardHandler, make(chan string, 1000)}
	return slog.New(l), l
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.c <- text
	return nil
}

func (l *lines) await(t *testing.T, part string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-l.c:
			if strings.Contains(line, "hunter2") {
				t.Errorf("a secret in the log: %s", line)
			}
			if strings.Contains(strings.ToLower(line), part) {
				return line
			}
		case <-timeout:
			t.Fatalf("waited %v for the log line %q", patience, part)
		}
	}
}

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

func start(t *testing.T, tune func(*server.Options)) *servers.NATSServer {
	t.Helper()
	s, err := servers.StartNATS(servers.NATSOptions{StoreDir: t.TempDir(), Tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, o natsconn.Options) *nats.Conn {
	t.Helper()
	nc, err := natsconn.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestServerAwayAtStart(t *testing.T) {
	s := start(t, nil)
	s.Shutdown()
	log, lines := newLog()
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := natsconn.Connect(t.Context(), natsconn.Options{URL: s.URL(), Name: "test", Log: log})
		done <- result{nc, err}
	}()
	if line := lines.await(t, "waiting for nats"); !strings.Contains(line, "connection refused") {
		t.Errorf("the line does not say why: %s", line)
	}
	select {
	case r := <-done:
		t.Fatalf("gave up: %v", r.err)
	default:
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	r := await(t, done, "the connection")
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer r.nc.Close()
	if err := natsconn.Ready(r.nc); err != nil {
		t.Errorf("ready: %v", err)
	}
	lines.await(t, "connected to nats")
}

func TestContextEndsTheWait(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := start(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	defer s.Shutdown()
	log, lines := newLog()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Options{URL: strings.Replace(s.URL(), "nats://", "nats://u:hunter2@", 1), Name: "test", Log: log})
		done <- err
	}()
	lines.await(t, "authorization")
	cancel()
	err := await(t, done, "the end of the wait")
	if !errors.Is(err, context.Canceled) || !strings.Contains(strings.ToLower(err.Error()), "authorization") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

func TestWhatNoRetryCures(t *testing.T) {
	log, _ := newLog()
	for name, o := range map[string]natsconn.Options{
		"no credentials file": {URL: "nats://127.0.0.1:1", CredsFile: "/does/not/exist"},
		"no CA file":          {URL: "nats://127.0.0.1:1", CAFile: "/does/not/exist"},
		"CA file is no PEM":   {URL: "tls://127.0.0.1:1", CAFile: "natsconn_test.go"},
		"URL is none":         {URL: "nats://a b:%zz"},
	} {
		o.Log = log
		if nc, err := natsconn.Connect(t.Context(), o); err == nil {
			nc.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// A wrong password is told again and again, and without the password.
func TestRefusedAtStart(t *testing.T) {
	s := start(t, func(o *server.Options) { o.Username, o.Password = "u", "other" })
	log, lines := newLog()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := natsconn.Connect(ctx, natsconn.Options{
			URL: strings.Replace(s.URL(), "nats://", "nats://u:hunter2@", 1), Name: "test", Log: log})
		done <- err
	}()
	for range 3 {
		if line := lines.await(t, "waiting for nats"); !strings.Contains(line, "Authorization") {
			t.Errorf("the line does not say why: %s", line)
		}
	}
	cancel()
	if err := await(t, done, "the end of the wait"); err == nil {
		t.Error("connected with a wrong password")
	}
}

func TestReconnect(t *testing.T) {
	s := start(t, nil)
	log, lines := newLog()
	lost, back := make(chan error, 10), make(chan struct{}, 10)
	nc := connect(t, natsconn.Options{
		URL: s.URL(), Name: "test", InboxPrefix: stream.EdgeInbox, Log: log,
		OnDisconnect: func(err error) { lost <- err },
		OnReconnect:  func() { back <- struct{}{} },
	})
	if inbox := nc.NewInbox(); !strings.HasPrefix(inbox, stream.EdgeInbox+".") {
		t.Errorf("inbox %s", inbox)
	}
	s.Shutdown()
	await(t, lost, "the disconnect hook")
	lines.await(t, "nats connection lost")
	if err := natsconn.Ready(nc); !errors.Is(err, natsconn.ErrNotConnected) {
		t.Errorf("ready while the server is away: %v", err)
	}
	if err := nc.Publish("x", []byte("y")); err == nil {
		t.Error("a publish while disconnected was buffered: nobody would learn its fate")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, back, "the reconnect hook")
	lines.await(t, "reconnected to nats")
	if err := natsconn.Ready(nc); err != nil {
		t.Errorf("ready: %v", err)
	}
	if len(lost) != 0 || len(back) != 0 {
		t.Errorf("%d and %d hook calls too many", len(lost), len(back))
	}
}

// TestSilentServer: a server that vanishes without closing its connections is noticed
// while there is time left to reconnect within the 15 s of a lost node.
func TestSilentServer(t *testing.T) {
	s := start(t, nil)
	proxy := servers.NewProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	log, _ := newLog()
	lost := make(chan error, 10)
	connect(t, natsconn.Options{URL: "nats://" + proxy.Addr(), Name: "test", Log: log,
		OnDisconnect: func(err error) { lost <- err }})
	proxy.Cut()
	select {
	case <-lost:
	case <-time.After(12 * time.Second):
		t.Fatal("12 s of silence are not noticed")
	}
}

// TestRefusedWhileRunning: a server that refuses the credentials for a while does not
// end the connection for good (nats.go closes it at the second refusal by default).
func TestRefusedWhileRunning(t *testing.T) {
	password := "hunter2"
	s := start(t, func(o *server.Options) { o.Username, o.Password = "u", password })
	log, lines := newLog()
	back := make(chan struct{}, 10)
	nc := connect(t, natsconn.Options{
		URL: strings.Replace(s.URL(), "nats://", "nats://u:hunter2@", 1), Name: "test", Log: log,
		OnReconnect: func() { back <- struct{}{} },
	})
	password = "other"
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // seconds apart, with several attempts between
		lines.await(t, "authorization")
	}
	password = "hunter2"
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, back, "the reconnect")
	if err := natsconn.Ready(nc); err != nil {
		t.Errorf("ready: %v", err)
	}
}

func TestSlowConsumer(t *testing.T) {
	s := start(t, nil)
	log, lines := newLog()
	slow := make(chan *nats.Subscription, 10)
	nc := connect(t, natsconn.Options{URL: s.URL(), Name: "test", Log: log, OnSlowConsumer: func(s *nats.Subscription) { slow <- s }})
	sub, err := nc.ChanSubscribe("x", make(chan *nats.Msg, 1))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := nc.Publish("x", nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := await(t, slow, "the slow consumer hook"); got != sub {
		t.Errorf("hook got %v", got)
	}
	lines.await(t, "too slow")
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := len(slow); n != 0 {
		t.Errorf("%d more reports of one event", n)
	}
}

func TestDrain(t *testing.T) {
	s := start(t, nil)
	log, _ := newLog()
	nc := connect(t, natsconn.Options{URL: s.URL(), Name: "test", Log: log})
	got := make(chan *nats.Msg, 10)
	other := connect(t, natsconn.Options{URL: s.URL(), Name: "other", Log: log})
	if _, err := other.ChanSubscribe("x", got); err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("x", nil); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Drain(t.Context(), nc); err != nil || !nc.IsClosed() {
		t.Errorf("drain: %v, closed %v", err, nc.IsClosed())
	}
	await(t, got, "what was published before the drain")

	s.Shutdown()
	if err := natsconn.Drain(t.Context(), other); err != nil || !other.IsClosed() {
		t.Errorf("drain without a server: %v, closed %v", err, other.IsClosed())
	}
}
