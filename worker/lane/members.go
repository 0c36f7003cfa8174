package lane

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

const (
	leasePrefix = "lease."
	// callTimeout bounds one request to the server.
	callTimeout = 2 * time.Second
)

// members keeps this worker's lease alive and watches the others'. It sends this
// worker's share of the lanes whenever that changes. One goroutine owns it.
type members struct {
	g       *Group
	seen    map[string]time.Time // worker → when its lease was last seen, by this process's clock
	last    []int                // the share that was sent last
	sent    bool
	ownPut  time.Time // last successful put of the own lease
	ownSeen time.Time // last time that the watch showed it
	watched time.Time // when the watch began
	ticked  time.Time
	links   uint64 // reconnects of the connection
	heir    bool   // a worker of this name died with its lease: its pins are still there
}

// assignment is this worker's share of the lanes.
type assignment struct {
	lanes []int
	heir  bool // the first share of a worker whose predecessor of the same name died
}

func newMembers(g *Group) *members {
	return &members{g: g, seen: map[string]time.Time{}}
}

// run returns when ctx ends, after the lease was given back (not after Abort).
func (m *members) run(ctx context.Context, shares chan<- assignment) {
	defer m.giveBack()
	m.lookForPredecessor(ctx)
	every := m.g.cfg.LeaseTTL / 3
	failing := complain{log: m.g.log, text: "lease cannot be kept, trying again"}
	for ctx.Err() == nil {
		w, err := m.open(ctx)
		failing.on(err)
		if err != nil {
			if missing(err) {
				m.g.cfg.Missing("bucket " + stream.Workers)
			}
			wait(ctx, every)
			continue
		}
		m.follow(ctx, w, every, shares)
		_ = w.Stop()
	}
}

// lookForPredecessor finds the lease that a process of this name left behind when it died:
// one that stopped gave it back. If it cannot be read, the pins end by themselves.
func (m *members) lookForPredecessor(ctx context.Context) {
	kv, err := m.bucket(ctx)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = kv.Get(ctx, leasePrefix+m.g.cfg.Worker)
	m.heir = err == nil
}

// open puts the lease and starts a watch.
func (m *members) open(ctx context.Context) (jetstream.KeyWatcher, error) {
	if err := m.renew(ctx); err != nil {
		return nil, err
	}
	kv, err := m.bucket(ctx)
	if err != nil {
		return nil, err
	}
	w, err := kv.Watch(ctx, leasePrefix+">", jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	m.watched = time.Now()
	return w, nil
}

func (m *members) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return m.g.js.KeyValue(ctx, stream.Workers)
}

func (m *members) renew(ctx context.Context) error {
	kv, err := m.bucket(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err = kv.PutString(ctx, leasePrefix+m.g.cfg.Worker, m.g.nonce); err == nil {
		m.ownPut = time.Now()
	}
	return err
}

func (m *members) giveBack() {
	if m.g.abort.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	kv, err := m.g.js.KeyValue(ctx, stream.Workers)
	if err == nil {
		err = kv.Delete(ctx, leasePrefix+m.g.cfg.Worker)
	}
	if err != nil {
		m.g.log.Warn("lease was not given back, it ends by itself", "error", err)
	}
}

// follow renews the lease and follows the watch until ctx ends or the watch is dead: it
// no longer shows what this worker writes (the bucket was deleted, the server is new).
func (m *members) follow(ctx context.Context, w jetstream.KeyWatcher, every time.Duration, shares chan<- assignment) {
	renew := time.NewTicker(every)
	defer renew.Stop()
	look := time.NewTicker(every / 4)
	defer look.Stop()
	failing := complain{log: m.g.log, text: "lease cannot be renewed, trying again"}
	complete := false
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Updates():
			if !ok {
				return
			}
			if e == nil {
				complete = true
				break
			}
			m.note(e)
			if len(w.Updates()) > 0 {
				continue
			}
		case <-renew.C:
			err := m.renew(ctx)
			failing.on(err)
			if missing(err) {
				m.g.cfg.Missing("bucket " + stream.Workers)
			}
		case <-look.C:
			if m.blind() {
				return
			}
			m.expire()
		}
		if complete && !m.publish(ctx, shares) {
			return
		}
	}
}

func (m *members) note(e jetstream.KeyValueEntry) {
	name := strings.TrimPrefix(e.Key(), leasePrefix)
	if e.Operation() != jetstream.KeyValuePut {
		if name != m.g.cfg.Worker {
			delete(m.seen, name)
		}
		return
	}
	m.seen[name] = time.Now()
	if name == m.g.cfg.Worker {
		m.ownSeen = time.Now()
	}
}

// blind reports that puts succeed and the watch does not show them.
func (m *members) blind() bool {
	ttl := m.g.cfg.LeaseTTL
	return time.Since(m.ownPut) < ttl && time.Since(m.watched) > ttl && time.Since(m.ownSeen) > ttl
}

// expire forgets workers that were silent for too long, unless it was this worker that
// could not hear: it slept, or was not connected.
func (m *members) expire() {
	now, ttl := time.Now(), m.g.cfg.LeaseTTL
	slept := !m.ticked.IsZero() && now.Sub(m.ticked) > ttl/2
	m.ticked = now
	nc := m.g.js.Conn()
	links := nc.Stats().Reconnects
	if slept || !nc.IsConnected() || links != m.links {
		m.links = links
		for w := range m.seen {
			m.seen[w] = now
		}
		return
	}
	for w, at := range m.seen {
		if w != m.g.cfg.Worker && now.Sub(at) > ttl {
			delete(m.seen, w)
		}
	}
}

// publish sends the share if it changed; it reports false when ctx ended.
func (m *members) publish(ctx context.Context, shares chan<- assignment) bool {
	live := slices.Sorted(maps.Keys(m.seen))
	mine := share(m.g.cfg.Worker, live, m.g.cfg.Lanes)
	if m.sent && slices.Equal(mine, m.last) {
		return true
	}
	m.g.log.Info("lanes of this worker", "lanes", mine, "workers", live)
	select {
	case shares <- assignment{lanes: mine, heir: m.heir}:
		m.last, m.sent, m.heir = mine, true, false
		return true
	case <-ctx.Done():
		return false
	}
}
