package streams_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

var ann = userid.MustParse("ann")

// work takes one message of lane 0, as its owner would, acknowledges it, and returns its
// sequence.
func work(ctx context.Context, t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	c, err := js.Consumer(ctx, stream.Up(0), stream.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(10*time.Second), jetstream.FetchPriorityGroup(stream.Group))
	if err != nil {
		t.Fatal(err)
	}
	meta, err := m.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(ctx); err != nil {
		t.Fatal(err)
	}
	return meta.Sequence.Stream
}

func send(ctx context.Context, t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	ack, err := js.Publish(ctx, subject.Up(0, ann), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// lives runs a lane through what becomes of it: its sequences begin with its incarnation,
// go on after restart, and never come again.
func lives(ctx context.Context, t *testing.T, js jetstream.JetStream, layout streams.Layout, restart func()) {
	t.Helper()
	began := time.Now()
	if err := streams.Ensure(ctx, js, layout); err != nil {
		t.Fatal(err)
	}
	first := send(ctx, t, js)
	if low, high := stream.FirstSeq(began), stream.FirstSeq(time.Now()); first < low || first > high {
		t.Fatalf("the first message is at %d, want %d to %d", first, low, high)
	}
	if seq := work(ctx, t, js); seq != first {
		t.Errorf("worked %d, want %d", seq, first)
	}
	restart() // the lane is empty
	if seq := send(ctx, t, js); seq != first+1 {
		t.Errorf("the second message is at %d, the first was at %d", seq, first)
	}
	if err := streams.Ensure(ctx, js, layout); err != nil { // at another time
		t.Fatal(err)
	}
	if _, err := js.ResetConsumer(ctx, stream.Up(0), stream.Consumer); err != nil {
		t.Fatal(err)
	}
	if seq := work(ctx, t, js); seq != first+1 {
		t.Errorf("after a reset %d was worked, want %d", seq, first+1)
	}
	for stream.FirstSeq(time.Now()) <= first { // in the same tick
		pause(ctx, t)
	}
	if err := js.DeleteStream(ctx, stream.Up(0)); err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(ctx, js, layout); err != nil {
		t.Fatal(err)
	}
	if seq := send(ctx, t, js); stream.Incarnation(seq) <= stream.Incarnation(first) {
		t.Errorf("the next incarnation's first is %d, the last one's was %d", seq, first)
	}
}

func TestIncarnationOfALane(t *testing.T) {
	s := servers.NATS(t)
	js, err := jetstream.New(s.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	layout := small
	layout.PinnedTTL = 100 * time.Millisecond
	lives(ctx, t, js, layout, func() {
		s.Shutdown()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		back(ctx, t, js)
	})
}

func TestIncarnationOfAReplicatedLane(t *testing.T) {
	c := servers.Cluster(t)
	js, err := jetstream.New(c.Nodes[0].Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	layout := streams.Layout{Lanes: 1, Shards: 1, Replicas: 3, PinnedTTL: 100 * time.Millisecond}
	lives(ctx, t, js, layout, func() {
		s, err := js.Stream(ctx, stream.Up(0))
		if err != nil {
			t.Fatal(err)
		}
		before := s.CachedInfo().Cluster.Leader
		if _, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream.Up(0), nil); err != nil {
			t.Fatal(err)
		}
		for {
			asked, cancel := context.WithTimeout(ctx, time.Second) // what a leader owes that steps down does not come
			i, err := s.Info(asked)
			cancel()
			if err == nil && i.Cluster.Leader != "" && i.Cluster.Leader != before {
				break
			}
			pause(ctx, t)
		}
		back(ctx, t, js)
	})
}

// back waits until the lane and its consumer answer again.
func back(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for {
		asked, cancel := context.WithTimeout(ctx, time.Second)
		_, err := js.Consumer(asked, stream.Up(0), stream.Consumer)
		cancel()
		if err == nil {
			return
		}
		pause(ctx, t)
	}
}

func pause(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

// A lane that an older worker made has no incarnation, and stays as it is.
func TestLaneWithoutIncarnationStays(t *testing.T) {
	js, ctx := start(t)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: stream.Up(0), Subjects: []string{subject.UpLane(0)},
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if seq := send(ctx, t, js); seq != 1 {
		t.Fatalf("the first message is at %d", seq)
	}
	layout := small
	layout.UplinkMaxBytes *= 2 // so that there is something to update
	if err := streams.Ensure(ctx, js, layout); err != nil {
		t.Fatal(err)
	}
	if seq := send(ctx, t, js); seq != 2 {
		t.Errorf("the second message is at %d", seq)
	}
	s, err := js.Stream(ctx, stream.Up(0))
	if err != nil {
		t.Fatal(err)
	}
	if c := s.CachedInfo().Config; c.FirstSeq != 0 || c.MaxBytes != layout.UplinkMaxBytes/2 {
		t.Errorf("first_seq %d, max_bytes %d", c.FirstSeq, c.MaxBytes)
	}
}
