// Package downlink tests edge/downlink against nats-server.
package downlink

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	shards   = 2
	deadline = 20 * time.Second
)

var serve = flag.String("serve", "", "be a nats-server with its store in this folder until stdin ends")

func TestMain(m *testing.M) {
	flag.Parse()
	if *serve != "" {
		serveNATS(*serve)
		return
	}
	goleak.VerifyTestMain(m)
}

// serveNATS is the server of a benchmark that measures its own process.
func serveNATS(dir string) {
	s, err := servers.StartNATS(servers.NATSOptions{StoreDir: dir})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
}

// childServer starts a nats-server in a process of its own.
func childServer(b *testing.B) (url string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-serve", b.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// layout is what the tests' streams are made by.
func layout(replicas int) streams.Layout {
	return streams.Layout{Lanes: 1, Shards: shards, Replicas: replicas, DownlinkMaxBytes: 64 << 20}
}

func ensure(t testing.TB, nc *nats.Conn, l streams.Layout) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for { // a cluster that has just come up refuses replicas for a moment
		err := streams.Ensure(ctx, js, l)
		if err == nil {
			return js
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

type dialer = func(ctx context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error)

func dial(url string) dialer {
	return func(_ context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error) {
		return nats.Connect(url, nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.IgnoreDiscoveredServers(),
			nats.ReconnectWait(10*time.Millisecond), nats.SetCustomDialer(wrapped(wrap)))
	}
}

// wrapped is a dialer that puts itself around what it connects to, as natsconn's does.
type wrapped func(net.Conn) net.Conn

func (w wrapped) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	if err != nil || w == nil {
		return c, err
	}
	return w(c), nil
}

// edge is a downlink with its metrics.
type edge struct {
	*downlink.Downlink
	reg *prometheus.Registry
	n   int
}

func newEdge(t testing.TB, url string, opts ...func(*downlink.Config)) *edge {
	t.Helper()
	e := &edge{reg: prometheus.NewRegistry()}
	cfg := downlink.Config{Edge: "e1", Shards: shards, Dial: dial(url), Log: slog.New(slog.DiscardHandler), Registry: e.reg, SweepEvery: time.Hour}
	for _, o := range opts {
		o(&cfg)
	}
	var err error
	if e.Downlink, err = downlink.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func sweepEvery(d time.Duration) func(*downlink.Config) {
	return func(c *downlink.Config) { c.SweepEvery = d }
}

// count is the sum of a counter, over the label values that are given.
func (e *edge) count(t testing.TB, name string, values ...string) float64 {
	t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "wirepost_edge_downlink_"+name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			if len(values) == 0 || slices.Contains(values, m.GetLabel()[0].GetValue()) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return sum
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// happening is one call of a Receiver.
type happening struct {
	kind    string // attached, failed, frame, moved, resync
	resumed bool
	err     error
	id      string // of a frame
	at      downlink.Token
}

// receiver records what it gets, and is woken by it.
type receiver struct {
	user userid.ID
	conn string

	mu  sync.Mutex
	all []happening
	new chan struct{} // capacity 1

	settled chan struct{} // closed when it is attached, or failed to be
}

func (r *receiver) add(h happening) {
	r.mu.Lock()
	r.all = append(r.all, h)
	r.mu.Unlock()
	select {
	case r.new <- struct{}{}:
	default:
	}
}

func (r *receiver) Attached(resumed bool, at downlink.Token) {
	r.add(happening{kind: "attached", resumed: resumed, at: at})
	close(r.settled)
}

func (r *receiver) AttachFailed(err error) {
	r.add(happening{kind: "failed", err: err})
	close(r.settled)
}

func (r *receiver) Moved(at downlink.Token)  { r.add(happening{kind: "moved", at: at}) }
func (r *receiver) Resync(at downlink.Token) { r.add(happening{kind: "resync", at: at}) }

func (r *receiver) Deliver(f downlink.Frame) {
	var m struct {
		Resume, ID string
	}
	if err := json.Unmarshal(f.Data, &m); err != nil {
		panic(err)
	}
	if m.Resume != f.At.String() {
		panic(fmt.Sprintf("the frame says %q, its token is %q", m.Resume, f.At))
	}
	r.add(happening{kind: "frame", id: m.ID, at: f.At})
}

func (r *receiver) history() []happening {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// frames are the ids of the frames, in order.
func (r *receiver) frames() []string {
	var ids []string
	for _, h := range r.history() {
		if h.kind == "frame" {
			ids = append(ids, h.id)
		}
	}
	return ids
}

// token is the last position.
func (r *receiver) token() downlink.Token {
	var at downlink.Token
	for _, h := range r.history() {
		if !h.at.IsZero() {
			at = h.at
		}
	}
	return at
}

func (r *receiver) has(kind string) bool {
	return slices.ContainsFunc(r.history(), func(h happening) bool { return h.kind == kind })
}

// until waits for a condition over what the receiver got.
func (r *receiver) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.After(deadline)
	for !ok() {
		select {
		case <-r.new:
		case <-end:
			t.Fatalf("%s of %s: %s did not come; got %v", r.conn, r.user, what, r.history())
		}
	}
}

func (r *receiver) untilFrames(t testing.TB, ids ...string) {
	t.Helper()
	r.until(t, "frames "+strings.Join(ids, " "), func() bool { return len(r.frames()) >= len(ids) })
	if got := r.frames(); !slices.Equal(got, ids) {
		t.Fatalf("%s got frames %v, want %v", r.conn, got, ids)
	}
}

// attach starts a receiver; it does not wait.
func (e *edge) attach(user, resume string) *receiver {
	e.n++
	r := &receiver{user: userid.MustParse(user), conn: fmt.Sprintf("e1-%d", e.n), new: make(chan struct{}, 1), settled: make(chan struct{})}
	e.Attach(r, r.user, r.conn, resume)
	return r
}

// login attaches a receiver and waits until it is.
func (e *edge) login(t testing.TB, user, resume string) *receiver {
	t.Helper()
	r := e.attach(user, resume)
	r.until(t, "attached", func() bool { return r.has("attached") })
	return r
}

func (r *receiver) resumed() bool { return r.history()[0].resumed }

// publish stores a frame for a user and returns its sequence.
func publish(t testing.TB, js jetstream.JetStream, user, id string, headers ...string) uint64 {
	t.Helper()
	u := userid.MustParse(user)
	m := &nats.Msg{Subject: subject.Down(subject.Shard(u, shards), u), Data: fmt.Appendf(nil, `{"id":%q}`, id), Header: nats.Header{}}
	for i := 0; i < len(headers); i += 2 {
		m.Header.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		ack, err := js.PublishMsg(ctx, m)
		if err == nil {
			return ack.Sequence
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// downName is the name of a user's stream.
func downName(t testing.TB, js jetstream.JetStream, user string) string {
	t.Helper()
	u := userid.MustParse(user)
	name, err := js.StreamNameBySubject(t.Context(), subject.Down(subject.Shard(u, shards), u))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.ParseDown(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// eventually polls what has no signal.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}
