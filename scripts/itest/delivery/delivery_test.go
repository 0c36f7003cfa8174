// Package delivery_test runs worker/delivery against a real nats-server.
package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/delivery"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }

const shards = 2

type fixture struct {
	*delivery.Downlink
	server *servers.NATSServer
	js     jetstream.JetStream
	keeper *streams.Keeper
	ctx    context.Context
}

func setup(t testing.TB) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	f := &fixture{server: servers.NATS(t), ctx: ctx}
	nc, err := nats.Connect(f.server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if f.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	f.keeper = streams.NewKeeper(f.js, streams.Layout{Lanes: 1, Shards: shards}, log, prometheus.NewRegistry())
	if err := f.keeper.Ensure(ctx); err != nil {
		t.Fatal(err)
	}
	if f.Downlink, err = delivery.New(nc, shards, f.keeper.Missing, log, prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func frames(n int, users ...string) []messaging.Frame {
	out := make([]messaging.Frame, n)
	for i := range out {
		out[i] = messaging.Frame{To: userid.MustParse(users[i%len(users)]), Data: fmt.Appendf(nil, `{"n":%d}`, i)}
	}
	return out
}

// stored returns what each user's stream holds, in order.
func (f *fixture) stored(t *testing.T, user string) (data []string, headers []nats.Header) {
	t.Helper()
	id := userid.MustParse(user)
	name, err := f.js.StreamNameBySubject(f.ctx, subject.Down(subject.Shard(id, shards), id))
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.js.OrderedConsumer(f.ctx, name, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject.Down(subject.Shard(id, shards), id)}})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.FetchNoWait(100_000)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		data, headers = append(data, string(m.Data())), append(headers, m.Headers())
	}
	return data, headers
}

func TestDeliverStoresInOrder(t *testing.T) {
	f := setup(t)
	if err := f.Deliver(f.ctx, frames(3000, "ann", "a.b", "😀")); err != nil {
		t.Fatal(err)
	}
	for i, user := range []string{"ann", "a.b", "😀"} {
		data, _ := f.stored(t, user)
		if len(data) != 1000 {
			t.Fatalf("%s has %d frames, want 1000", user, len(data))
		}
		for k, d := range data {
			if want := fmt.Sprintf(`{"n":%d}`, 3*k+i); d != want {
				t.Fatalf("%s: frame %d is %s, want %s", user, k, d, want)
			}
		}
	}
}

func TestTarget(t *testing.T) {
	f := setup(t)
	id := userid.MustParse("ann")
	live := make(chan *nats.Msg, 8)
	sub, err := f.js.Conn().ChanSubscribe(subject.Live(subject.Shard(id, shards), id), live)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := f.Deliver(f.ctx, []messaging.Frame{{To: id, Conn: "e1-1", Data: []byte(`{"a":1}`)}, {To: id, Data: []byte(`{"b":1}`)}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Reply(messaging.Frame{To: id, Conn: "e1-1", Data: []byte(`{"c":1}`)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ conn, data, stored string }{{"e1-1", `{"a":1}`, "DOWN"}, {"", `{"b":1}`, "DOWN"}, {"e1-1", `{"c":1}`, ""}} {
		select {
		case m := <-live:
			if m.Header.Get(envelope.Target) != want.conn || string(m.Data) != want.data || !strings.HasPrefix(m.Header.Get("Nats-Stream"), want.stored) ||
				(want.stored == "") != (m.Header.Get("Nats-Stream") == "") {
				t.Errorf("got %s %v, want %+v", m.Data, m.Header, want)
			}
		case <-f.ctx.Done():
			t.Fatal("nothing on live")
		}
	}
	if data, _ := f.stored(t, "ann"); len(data) != 2 {
		t.Errorf("%v are stored, want the two of Deliver", data)
	}
}

// The echo to a sender says what it echoes, what was traced carries its context on, also past
// the stream, and frames without either have no header of ours.
func TestEchoAndTrace(t *testing.T) {
	f := setup(t)
	id := userid.MustParse("ann")
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	echo := envelope.EchoOf("e1", time.UnixMilli(1764000000123))
	live := make(chan *nats.Msg, 8)
	sub, err := f.js.Conn().ChanSubscribe(subject.Live(subject.Shard(id, shards), id), live)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	want := []messaging.Frame{{}, {Echo: echo}, {Trace: trace}, {Conn: "e1-1", Echo: echo, Trace: trace}}
	for i := range want {
		want[i].To, want[i].Data = id, []byte(`{"a":1}`)
	}
	if err := f.Deliver(f.ctx, want); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		select {
		case m := <-live:
			for name, value := range map[string]string{envelope.Target: w.Conn, envelope.Echo: w.Echo, envelope.TraceParent: w.Trace} {
				if got := m.Header.Get(name); got != value {
					t.Errorf("%s of %+v is %q", name, w, got)
				}
			}
		case <-f.ctx.Done():
			t.Fatal("nothing on live")
		}
	}
}

// All streams are deleted between two calls: the second reports it, and succeeds when
// they are back, under another epoch.
func TestMissingStreamIsReportedAndComesBack(t *testing.T) {
	f := setup(t)
	kctx, stop := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f.keeper.Keep(kctx) })
	defer wg.Wait()
	defer stop()
	if err := f.Deliver(f.ctx, frames(10, "ann")); err != nil {
		t.Fatal(err)
	}
	for name := range f.js.StreamNames(f.ctx).Name() {
		if _, err := stream.ParseDown(name); err == nil {
			if err := f.js.DeleteStream(f.ctx, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Deliver(f.ctx, frames(10, "ann")); err != nil {
		t.Fatal(err)
	}
	if data, _ := f.stored(t, "ann"); len(data) != 10 {
		t.Errorf("%d frames, want 10", len(data))
	}
}

// While the server is away Deliver fails after some seconds, or at the end of its
// context, and never reports what is not stored.
func TestDeliverFailsWhileTheServerIsAway(t *testing.T) {
	f := setup(t)
	f.server.Shutdown()
	ctx, cancel := context.WithTimeout(f.ctx, 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := f.Deliver(ctx, frames(10, "ann")); err == nil {
		t.Error("delivered without a server")
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("took %v, want about 300 ms", d)
	}
	if err := f.Reply(frames(1, "ann")[0]); err == nil {
		t.Error("replied without a server")
	}
	if err := f.server.Restart(); err != nil {
		t.Fatal(err)
	}
	for ctx := f.ctx; f.Deliver(ctx, frames(10, "ann")) != nil; {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
}

// The server restarts while frames fly: each call that returned nil is stored whole and
// in order, at most with repetitions of a tail.
func TestRestartInFlight(t *testing.T) {
	f := setup(t)
	var calls atomic.Int32
	done := make(chan error, 1)
	go func() {
		for i := 0; i < 400; {
			batch := []messaging.Frame{}
			for range 50 {
				batch = append(batch, messaging.Frame{To: userid.MustParse("ann"), Data: fmt.Appendf(nil, `{"n":%d}`, i*50+len(batch))})
			}
			err := f.Deliver(f.ctx, batch)
			if f.ctx.Err() != nil {
				done <- f.ctx.Err()
				return
			}
			if err == nil {
				i++
				calls.Add(1)
			}
		}
		done <- nil
	}()
	for calls.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	f.server.Shutdown()
	if err := f.server.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	data, _ := f.stored(t, "ann")
	next, again := 0, 0
	for _, d := range data {
		n := 0
		if _, err := fmt.Sscanf(d, `{"n":%d}`, &n); err != nil {
			t.Fatal(err)
		}
		switch {
		case n == next:
			next++
		case n < next:
			again++
		default:
			t.Fatalf("frame %d after %d", n, next-1)
		}
	}
	if next != 20_000 {
		t.Errorf("%d frames, want 20000", next)
	}
	t.Logf("%d frames were stored twice", again)
}

func TestTooLargeDoesNotStopTheOthers(t *testing.T) {
	f := setup(t)
	all := frames(3, "ann")
	all[1].Data = make([]byte, 2<<20)
	if err := f.Deliver(f.ctx, all); err != nil {
		t.Fatal(err)
	}
	if data, _ := f.stored(t, "ann"); len(data) != 2 {
		t.Errorf("%d frames stored, want 2", len(data))
	}
}

// A call whose context is over reports success only for frames that are stored.
func TestDeliverEndsWithItsContext(t *testing.T) {
	f := setup(t)
	for range 5 {
		ctx, cancel := context.WithCancel(f.ctx)
		cancel()
		before, _ := f.stored(t, "ann")
		err := f.Deliver(ctx, frames(200, "ann"))
		after, _ := f.stored(t, "ann")
		if err == nil && len(after) < len(before)+200 {
			t.Fatalf("success, and %d of 200 frames are stored", len(after)-len(before))
		}
		if err != nil && !errors.Is(err, context.Canceled) && !strings.HasPrefix(err.Error(), "deliver: ") {
			t.Errorf("error %v", err)
		}
	}
}

// BenchmarkDeliver publishes frames of 250 bytes to 1,000 users, by 8 callers with
// batches of 128, as lanes do. One operation is one frame, the server's work included. With
// echo every other one is a sender's and says when it was received.
func BenchmarkDeliver(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmarkDeliver(b, "") })
	b.Run("echo", func(b *testing.B) { benchmarkDeliver(b, envelope.EchoOf("edge-7d9c5b6f4-x2k9p", time.Now())) })
}

func benchmarkDeliver(b *testing.B, echo string) {
	f := setup(b)
	users := make([]userid.ID, 1000)
	for i := range users {
		users[i] = userid.MustParse(fmt.Sprintf("u%d", i))
	}
	data := []byte(`{"msgType":3,"msgBody":"` + strings.Repeat("x", 226) + `"}`)
	const callers, size = 8, 128
	var next atomic.Int64
	var wg sync.WaitGroup
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			batch := make([]messaging.Frame, size)
			for next.Add(size) <= int64(b.N)+size {
				for i := range batch {
					batch[i] = messaging.Frame{To: users[(c*size+i)%len(users)], Data: data}
					if i%2 == 0 {
						batch[i].Echo = echo
					}
				}
				if err := f.Deliver(context.Background(), batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPublishMsgAsync is the client library's own way, to compare with.
func BenchmarkPublishMsgAsync(b *testing.B) {
	f := setup(b)
	data := []byte(`{"msgType":3,"msgBody":"` + strings.Repeat("x", 226) + `"}`)
	js, err := jetstream.New(f.js.Conn(), jetstream.WithPublishAsyncMaxPending(1024))
	if err != nil {
		b.Fatal(err)
	}
	subjects := make([]string, 1000)
	for i := range subjects {
		id := userid.MustParse(fmt.Sprintf("u%d", i))
		subjects[i] = subject.Down(subject.Shard(id, shards), id)
	}
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := range b.N {
		if _, err := js.PublishAsync(subjects[i%len(subjects)], data); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
