package killpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := child(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	servers.Main(m, func() error { return goleak.Find() })
}

const (
	secret = "the-tests-of-kill-points-sign-with-this"
	// patience bounds a test. Undisturbed it takes some 2 s; a machine may be slow.
	patience = 30 * time.Second
)

// system is a nats-server, a store and an edge; workers come and go.
type system struct {
	t     *testing.T
	ctx   context.Context
	nats  *servers.NATSServer
	js    jetstream.JetStream // the test's own
	store string              // URI
	db    *mongo.Database     // the same store, without the worker's room between
	url   string              // of the edge
}

func start(t *testing.T, store string) *system {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := &system{t: t, ctx: ctx, nats: servers.NATS(t), store: store}
	var err error
	if s.js, err = jetstream.New(s.nats.Conn(t)); err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(ctx, s.js, layout); err != nil {
		t.Fatal(err)
	}
	s.openStore()
	s.startEdge()
	return s
}

func (s *system) openStore() {
	s.t.Helper()
	u, err := url.Parse(s.store)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := mongo.Connect(options.Client().ApplyURI(s.store))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	s.db = c.Database(strings.TrimPrefix(u.Path, "/"))
}

// startEdge runs an edge in this process until the test's end.
func (s *system) startEdge() {
	s.t.Helper()
	cfg, err := edge.LoadConfig(map[string]string{"EDGE_NAME": "edge", "NATS_URL": s.nats.URL(), "JWT_HS256_SECRET": secret,
		"LANES": fmt.Sprint(layout.Lanes), "SHARDS": fmt.Sprint(layout.Shards), "DRAIN_NOTICE": "0s", "DRAIN_RATE": "100000"})
	if err != nil {
		s.t.Fatal(err)
	}
	ln, adm := listen(s.t), listen(s.t)
	s.url = "ws://" + ln.Addr().String() + "/ws"
	e := edge.New(cfg, edge.Deps{Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)).With("part", "edge"),
		Registry: admin.NewRegistry(), Listener: ln, AdminListener: adm})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // written by the edge, read by the cleanup
	go func() { ended <- e.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the edge ended: %v", err)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// worker is a worker's process.
type worker struct {
	s    *system
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and err is set
	err  error
}

// spawn starts a worker that dies at a point, or lives ("").
func (s *system) spawn(name string, at point) *worker {
	s.t.Helper()
	text, err := json.Marshal(spec{Name: name, NATS: s.nats.URL(), Store: s.store, At: at})
	if err != nil {
		s.t.Fatal(err)
	}
	w := &worker{s: s, cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	w.cmd.Stderr = s.t.Output()
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		w.err = w.cmd.Wait()
	}()
	s.t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // fails when it has ended
		<-w.done
	})
	return w
}

// killed waits until the process has killed itself.
func (w *worker) killed() {
	w.s.t.Helper()
	select {
	case <-w.done:
	case <-w.s.ctx.Done():
		w.s.t.Fatal("the worker did not die")
	}
	var exit *exec.ExitError
	if !errors.As(w.err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		w.s.t.Fatalf("the worker ended with %v, want SIGKILL", w.err)
	}
}

// stop tells the process to stop and waits for its end.
func (w *worker) stop() {
	w.s.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
		if w.err != nil {
			w.s.t.Errorf("the worker that was told to stop ended with %v", w.err)
		}
	case <-w.s.ctx.Done():
		w.s.t.Error("the worker did not stop")
	}
}

// scan returns all messages of a stream, in order.
func scan(ctx context.Context, js jetstream.JetStream, name string) ([]*jetstream.RawStreamMsg, error) {
	st, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []*jetstream.RawStreamMsg
	state := st.CachedInfo().State
	for seq := state.FirstSeq; state.Msgs > 0 && seq <= state.LastSeq; seq++ {
		m, err := st.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // acknowledged
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// frames returns the frames with a clientMsgId in a stream, in order: those of a subject,
// or all ("").
func (s *system) frames(name, subject string) (frames []protocol.Message) {
	s.t.Helper()
	all, err := scan(s.ctx, s.js, name)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range all {
		var f protocol.Message
		if subject != "" && m.Subject != subject || json.Unmarshal(m.Data, &f) != nil || f.ClientMsgID == "" {
			continue
		}
		frames = append(frames, f)
	}
	return frames
}

// published returns what is in a user's downlink.
func (s *system) published(user string) []protocol.Message {
	s.t.Helper()
	id := userid.MustParse(user)
	to := subject.Down(subject.Shard(id, layout.Shards), id)
	name, err := s.js.StreamNameBySubject(s.ctx, to)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.frames(name, to)
}

func idsOf(frames []protocol.Message) (ids []string) {
	for _, f := range frames {
		ids = append(ids, f.ClientMsgID)
	}
	return ids
}

// stored returns what is in the store, in the order of the keys. There is but one
// conversation, so this is its order.
func (s *system) stored() (ids []string) {
	s.t.Helper()
	found, err := s.db.Collection("messages").Find(s.ctx, bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		s.t.Fatal(err)
	}
	var docs []struct {
		CID string `bson:"cid"`
	}
	if err := found.All(s.ctx, &docs); err != nil {
		s.t.Fatal(err)
	}
	for _, d := range docs {
		ids = append(ids, d.CID)
	}
	return ids
}

// device is a client and what its event channel delivered.
type device struct {
	s    *system
	user string
	*client.Client

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at each message
	got     []client.Message
}

// connect starts a device that lives to the test's end.
func (s *system) connect(user string) *device {
	s.t.Helper()
	c, err := client.New(client.Options{URLs: []string{s.url}, User: user, FromStart: true, MaxBackoff: time.Second,
		Token: func(context.Context) (string, error) { return devkeys.Token([]byte(secret), user, time.Hour) }})
	if err != nil {
		s.t.Fatal(err)
	}
	d := &device{s: s, user: user, Client: c, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			s.t.Errorf("client of %s: %v", user, err)
		}
	})
	running.Go(func() {
		for ev := range c.Events() {
			if m, ok := ev.(client.Message); ok {
				d.note(m)
			}
		}
	})
	s.t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

func (d *device) note(m client.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, m)
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits for n messages and returns all that there are.
func (d *device) await(n int) []client.Message {
	d.s.t.Helper()
	for {
		d.mu.Lock()
		got, changed := d.got, d.changed
		d.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-d.s.ctx.Done():
			d.s.t.Fatalf("%s has %d messages, want %d", d.user, len(got), n)
		}
	}
}

// history reads a conversation as the gateway shows it, oldest first.
func (d *device) history(conv string) (all []protocol.Message) {
	d.s.t.Helper()
	for after := int64(0); ; after = all[len(all)-1].Seq {
		page, err := d.History(d.s.ctx, "", protocol.HistoryRequest{ConvID: conv, AfterSeq: &after, Limit: protocol.MaxPage})
		if err != nil {
			d.s.t.Fatalf("history of %s: %v", conv, err)
		}
		all = append(all, page.Messages...)
		if !page.More {
			return all
		}
	}
}
