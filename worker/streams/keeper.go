package streams

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// checkEvery is how often a Keeper looks whether everything is there.
	checkEvery = 30 * time.Second
	// settle is the time from a report to the look, and between two tries. Many rooms report
	// at once; and a stream whose deletion is under way must not be created: nats-server
	// without a cluster (2.15) gives its name and its consumers up first and its directory
	// last, takes the files of the new one away with it, and the new one takes nothing, and
	// answers nothing, until the server is restarted [r].
	settle = time.Second
)

// Keeper creates again what went missing while the workers run. Its methods may be
// called concurrently.
type Keeper struct {
	js      jetstream.JetStream
	layout  Layout
	log     *slog.Logger
	m       *metrics
	missing chan string // written by Missing, read by Keep, never closed; one report is enough
}

// NewKeeper returns a Keeper of a layout; Keep must run for it to do anything.
func NewKeeper(js jetstream.JetStream, layout Layout, log *slog.Logger, reg prometheus.Registerer) *Keeper {
	return &Keeper{js: js, layout: layout, log: log, m: newMetrics(reg), missing: make(chan string, 1)}
}

// Ensure is the function Ensure with the Keeper's layout.
func (k *Keeper) Ensure(ctx context.Context) error {
	return k.m.looked(ensure(ctx, k.js, k.layout, true, k.m.made.Inc))
}

// Missing reports that something was not found; what names it for the log. It never blocks.
func (k *Keeper) Missing(what string) {
	select {
	case k.missing <- what:
	default:
	}
}

// Keep looks every half minute, and a second after each report, whether everything
// is there, and creates what is not. It leaves limits alone. It returns when ctx ends.
func (k *Keeper) Keep(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case what := <-k.missing:
			k.log.Warn("something is missing on nats, looking and creating", "missing", what)
			if !wait(ctx, settle) {
				return
			}
		}
		for !k.look(ctx) {
			if !wait(ctx, settle) {
				return
			}
		}
	}
}

// look reports whether everything is there now. ctx has no deadline, so that each request
// has one of its own (jetstream's default of 5 s): one that is lost on the way, as when a
// route between servers is cut, must not keep the look from ending.
func (k *Keeper) look(ctx context.Context) bool {
	err := k.m.looked(ensure(ctx, k.js, k.layout, false, k.m.made.Inc))
	if err != nil && ctx.Err() == nil {
		k.log.Error("streams are not as they must be, trying again", "error", err)
	}
	return err == nil
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
