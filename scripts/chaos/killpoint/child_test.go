package killpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/delivery"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/mongostore"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	// childEnv makes this process a worker: a spec as JSON.
	childEnv = "WIREPOST_TEST_KILLPOINT"
	// ttl is that of pins and leases: short, so that the take-over is quick.
	ttl = time.Second
	// stopFor bounds the end of a worker that is told to stop.
	stopFor = 5 * time.Second
)

// layout has one lane, so that a batch of one sender meets nobody else's, and two shards.
var layout = streams.Layout{Lanes: 1, Shards: 2, PinnedTTL: ttl, LeaseTTL: ttl}

// spec is what a worker's process is told.
type spec struct {
	Name  string
	NATS  string // URL
	Store string // URI that names the database
	At    point  // "" for a worker that lives
}

// child is the main function of a worker's process: the wiring of package worker without
// the admin port and the janitor. SIGTERM stops it gracefully.
func child(text string) error {
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("spec of a worker: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log, reg := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("worker", s.Name), prometheus.NewRegistry()

	opts := []nats.Option{nats.Name(s.Name), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.CustomInboxPrefix(stream.WorkerInbox)}
	var k *killer
	if s.At != "" {
		var err error
		if k, err = newKiller(s); err != nil {
			return err
		}
		opts = append(opts, nats.SetCustomDialer(dialer{k}))
	}
	nc, err := nats.Connect(s.NATS, opts...)
	if err != nil {
		return fmt.Errorf("connect to nats: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	keeper := streams.NewKeeper(js, layout, log, prometheus.NewRegistry())
	if err := keeper.Ensure(ctx); err != nil {
		return err
	}
	store, err := mongostore.Open(ctx, mongostore.Options{URI: s.Store, Log: log, Registry: reg})
	if err != nil {
		return err
	}
	out, err := delivery.New(nc, layout.Shards, keeper.Missing, log, reg)
	if err != nil {
		return err
	}
	business := messaging.New(store, out, protocol.MaxBody, log, reg)
	if k != nil {
		k.nc = nc
		business = messaging.New(mortalStore{store, k}, mortalDownlink{out, k}, protocol.MaxBody, log, prometheus.NewRegistry())
	}
	group, err := lane.New(js, lane.Config{Worker: s.Name, Lanes: layout.Lanes, Missing: keeper.Missing, PinnedTTL: ttl, LeaseTTL: ttl},
		business, log, reg)
	if err != nil {
		return err
	}
	go keeper.Keep(ctx) // ends with the process
	err = group.Run(ctx)
	business.Wait()
	closing, cancel := context.WithTimeout(context.Background(), stopFor)
	defer cancel()
	return errors.Join(err, out.Close(), store.Close(closing))
}
