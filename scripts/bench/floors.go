package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/proc"
	"github.com/wirepost/wirepost/scripts/bench/system"
)

// natsSize is the payload of a message of the NATS floor: a small chat message with its
// JSON around it.
const natsSize = 256

// floors measures JetStream alone: what is published and consumed without an edge and a
// worker. The client is this process.
func floors(ctx context.Context, b *bench) error {
	n := &natsFloor{count: b.spans.natsMessages,
		rate: b.table(figure.Table{Title: "JetStream alone", Unit: "messages/s",
			Note: fmt.Sprintf("%d bytes, one work-queue stream in a file, one replica; client and server share the machine.", natsSize)}),
		cpu: b.table(figure.Table{Title: "JetStream alone: CPU of the nats-server", Unit: "µs a message"})}
	for round := range b.spans.rounds {
		fmt.Fprintf(os.Stderr, "floors, round %d of %d: JetStream\n", round+1, b.spans.rounds)
		if err := n.round(ctx, b.bin.NATS); err != nil {
			return err
		}
	}
	return nil
}

type natsFloor struct {
	count     int
	rate, cpu *figure.Table
}

func (n *natsFloor) round(ctx context.Context, bin string) error {
	dir, err := os.MkdirTemp("", "wirepost-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, url, err := system.NATS(ctx, bin, filepath.Join(dir, "nats"))
	if server != nil {
		defer server.Kill()
	}
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
	if err != nil {
		return err
	}
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "FLOOR", Subjects: []string{"floor"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"publish, 1,024 under way", func() error { return publishAll(ctx, js, n.count) }},
		{"consume and acknowledge", func() error { return consumeAll(ctx, s, n.count) }},
	} {
		m, err := proc.NewMeter(server)
		if err != nil {
			return err
		}
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		used, span, err := m.Read()
		if err != nil {
			return err
		}
		n.rate.Add(step.name, perSecond(n.count, span))
		n.cpu.Add(step.name, micros(used[0], n.count))
	}
	return nil
}

func publishAll(ctx context.Context, js jetstream.JetStream, n int) error {
	body := []byte(strings.Repeat("x", natsSize))
	for range n {
		if _, err := js.PublishAsync("floor", body, jetstream.WithStallWait(10*time.Second)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func consumeAll(ctx context.Context, s jetstream.Stream, n int) error {
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2048})
	if err != nil {
		return err
	}
	for got := 0; got < n; {
		batch, err := c.Fetch(min(512, n-got))
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			if err := m.Ack(); err != nil {
				return err
			}
			got++
		}
		if err := batch.Error(); err != nil {
			return err
		}
	}
	// The last acknowledgements are on their way until the stream is empty.
	for {
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		if info.State.Msgs == 0 {
			return nil
		}
	}
}
