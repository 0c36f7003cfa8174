package lane_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

// counting commits nothing and tells when it has seen enough.
type counting struct{ left chan int }

func (c *counting) Work(_ context.Context, batch []envelope.Event) ([]messaging.Dead, error) {
	c.left <- len(batch)
	return nil, nil
}

// BenchmarkLaneCommit is one message from the lane's stream through a business that does
// nothing to its acknowledgement, the server's work included; publishing is not.
func BenchmarkLaneCommit(b *testing.B) {
	server := servers.NATS(b)
	js, err := jetstream.New(server.Conn(b), jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		b.Fatal(err)
	}
	if err := streams.Ensure(b.Context(), js, streams.Layout{Lanes: 1, Shards: 1}); err != nil {
		b.Fatal(err)
	}
	id := users(1)[0]
	for i := range b.N {
		if _, err := js.PublishMsgAsync(frame(1, id, i+1)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	wjs, err := jetstream.New(server.Conn(b))
	if err != nil {
		b.Fatal(err)
	}
	business := &counting{left: make(chan int, 1)}
	g, err := lane.New(wjs, lane.Config{Worker: "w1", Lanes: 1}, business, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	batches := 1
	b.ReportAllocs()
	left := b.N - <-business.left
	b.ResetTimer()
	began := time.Now()
	for ; left > 0; batches++ {
		left -= <-business.left
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/float64(batches), "msg/batch")
	b.StopTimer()
	cancel()
	<-done
}
