package load

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/worker"
)

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }

const secret = "tests of the load sign with this secret"

// system runs an edge and a worker inside the test and returns the edge's address.
func system(t *testing.T) (url string) {
	t.Helper()
	uri, nats := servers.Mongo(t), servers.NATS(t).URL() // FerretDB, in this process, is too slow under the race detector
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ecfg, err := edge.LoadConfig(map[string]string{"EDGE_NAME": "e", "NATS_URL": nats, "JWT_HS256_SECRET": secret, "DRAIN_NOTICE": "0s"})
	if err != nil {
		t.Fatal(err)
	}
	wcfg, err := worker.LoadConfig(map[string]string{"WORKER_NAME": "w", "NATS_URL": nats, "MONGODB_URI": uri})
	if err != nil {
		t.Fatal(err)
	}
	clients := listen()
	e := edge.New(ecfg, edge.Deps{Log: log, Registry: admin.NewRegistry(), Listener: clients, AdminListener: listen()})
	w := worker.New(wcfg, worker.Deps{Log: log, Registry: admin.NewRegistry(), AdminListener: listen()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- e.Run(ctx) }()
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return fmt.Sprintf("ws://%s/ws", clients.Addr())
}

// What the users do and see is in the history: everything sent and acknowledged is among
// the rows, every device shows all of its rows, and every kind of send is there.
func TestAHistoryIsWritten(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var file bytes.Buffer
	w := history.NewWriter(&file)
	l := New(Options{URLs: []string{system(t)}, History: w, Seed: 7, Users: 6, Second: 2, Late: 1, Slow: 1, Rate: 80, Again: 0.2, Disturb: 2 * time.Second,
		Token: func(user string) (string, error) { return devkeys.Token([]byte(secret), user, time.Hour) }})
	steps(t, ctx, l)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	count := map[history.Kind]int{}
	rows, acked, shown := map[string]history.Record{}, map[string]bool{}, map[string]map[string]bool{}
	var again, reuse int
	err := history.Scan(&file, func(r history.Record) error {
		count[r.Kind]++
		switch r.Kind {
		case history.Row:
			rows[r.CID] = r
		case history.Ack:
			acked[r.CID] = true
		case history.Event:
			if shown[r.Dev] == nil {
				shown[r.Dev] = map[string]bool{}
			}
			shown[r.Dev][r.CID] = true
		case history.Send:
			if r.Again {
				again++
			}
			if r.Reuse {
				reuse++
			}
		case history.Outbox:
			if r.Seq != 0 {
				t.Errorf("%s has %d sends unresolved", r.Dev, r.Seq)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %d again, %d reuse", count, again, reuse)
	for cid := range acked {
		if _, found := rows[cid]; !found {
			t.Errorf("%s was acknowledged and is no row", cid)
		}
	}
	for cid, r := range rows {
		for _, user := range []string{r.From, r.To} {
			if !shown[user+"|phone"][cid] {
				t.Errorf("%s was not shown to %s", cid, user)
			}
		}
	}
	for _, k := range []history.Kind{history.Begin, history.End, history.Open, history.Put, history.Wire, history.Never, history.Close,
		history.Send, history.Ack, history.Refusal, history.Event, history.Outbox, history.Row, history.Read} {
		if count[k] == 0 {
			t.Errorf("no record of %s", k)
		}
	}
	if again == 0 || reuse == 0 || len(rows) < 100 {
		t.Errorf("%d sends again, %d with another body, %d rows", again, reuse, len(rows))
	}
}

// steps is the life of a load: 3 s of traffic, with a flood in it.
func steps(t *testing.T, ctx context.Context, l *Load) {
	t.Helper()
	check := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("start", l.Start(ctx))
	l.Run()
	hear, err := l.Flood(ctx, rand.New(rand.NewPCG(1, 1)), 20, 20_000)
	check("flood", err)
	check("a wrong send", l.Send(ctx, l.Users()[0], strings.Repeat("x", 129), 1))
	for l.Acks() < 200 { // a load in time has no other end
		select {
		case <-ctx.Done():
			t.Fatalf("%d acknowledged", l.Acks())
		case <-time.After(50 * time.Millisecond):
		}
	}
	l.CutAll()
	hear()
	check("older", l.AwaitOlder(ctx, time.Now()))
	l.Stop()
	check("resolved", l.AwaitResolved(ctx))
	lasts, err := l.ReadHistory(ctx)
	check("history", err)
	check("shown", l.AwaitShown(ctx, lasts))
	if l.Unresolved() != 0 || l.Sent() < l.Acks()/2 {
		t.Errorf("%d unresolved, %d sent, %d acknowledged", l.Unresolved(), l.Sent(), l.Acks())
	}
	l.End()
	for _, err := range l.Failures() {
		t.Error(err)
	}
}

// The frames of a stream are found however it is cut.
func TestFramesOfAStream(t *testing.T) {
	var stream []byte
	stream = append(stream, "HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\n"...)
	var want []string
	for i, n := range []int{0, 1, 125, 126, 70_000} {
		text := strings.Repeat(string(rune('a'+i)), n)
		want = append(want, text)
		f := ws.NewTextFrame([]byte(text))
		if i%2 == 1 {
			f = ws.MaskFrame(f)
		}
		stream = append(stream, ws.MustCompileFrame(f)...)
	}
	for _, step := range []int{1, 3, 1000, len(stream)} {
		var f frames
		var got []string
		for rest := range slices.Chunk(stream, step) {
			f.feed(rest, func(_ ws.OpCode, p []byte) { got = append(got, string(p)) })
		}
		if !slices.Equal(got, want) {
			t.Errorf("cut every %d bytes: %d frames", step, len(got))
		}
	}
}

func TestDigestTellsBodiesApart(t *testing.T) {
	long := func(c string) []byte { return []byte(`"` + strings.Repeat("x", 300) + c + `"`) }
	if string(long("a")) == Digest(long("a")) || Digest(long("a")) == Digest(long("b")) || Digest([]byte(`"short"`)) != `"short"` {
		t.Error(Digest(long("a")), Digest(long("b")))
	}
}
