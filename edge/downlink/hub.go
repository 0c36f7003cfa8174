package downlink

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/shared/userid"
)

const tickEvery = 250 * time.Millisecond

// hub is one goroutine of the downlink: it owns some shards and their users, and gets
// the live frames of these by one connection.
type hub struct {
	d     *Downlink
	feed  *feed.Feed // subscriptions and markers, in this order on the wire
	reads *nats.Conn // direct gets, which block the server's reading of a connection
	box   mailbox
	late  atomic.Bool // see Downlink.Late

	// Owned by run.
	life     context.Context
	shards   []*shard // by number; nil for those of other hubs
	held     int      // bytes in holds
	holdMost int      // holdFrames
	asked    uint64   // counts jobs that users wait for
	again    bool     // the feed was connected before
	probers  sync.WaitGroup
}

type letterKind uint8

const (
	attach letterKind = iota
	detach
	connected // the feed is, and has no subscriptions
	marked    // a round's marker was answered
	proven    // results of a round
	ended     // a round is over
)

type letter struct {
	kind     letterKind
	user     userid.ID
	receiver Receiver
	conn     uint64
	resume   string // of attach

	round *round   // of marked, proven, ended
	mark  mark     // of marked
	res   *results // of proven
}

// mailbox takes letters from any goroutine; nothing waits.
type mailbox struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	q     []letter
	spare []letter // owned by the hub
}

func (b *mailbox) put(l letter) {
	b.mu.Lock()
	b.q = append(b.q, l)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns what came; it is valid until the next take.
func (b *mailbox) take() []letter {
	clear(b.spare)
	if cap(b.spare) > 4096 { // of a burst
		b.spare = nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.q
	b.q = b.spare[:0]
	b.spare = q
	return q
}

func newHub(d *Downlink, n int) *hub {
	h := &hub{d: d, holdMost: holdFrames, shards: make([]*shard, d.cfg.Shards), box: mailbox{wake: make(chan struct{}, 1)}}
	h.feed = feed.New(func() { h.box.put(letter{kind: connected}) })
	for i := n; i < d.cfg.Shards; i += d.cfg.Hubs {
		h.shards[i] = newShard(h, i)
	}
	return h
}

func (h *hub) run(ctx context.Context) {
	h.life = ctx
	defer h.probers.Wait()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	h.tick(time.Now())
	for {
		select {
		case b := <-h.feed.Batches():
			for i := range b.Frames {
				h.frame(&b.Frames[i])
			}
			b.Release()
			h.kickAll()
		case <-h.box.wake:
			letters := h.box.take()
			for i := range letters {
				h.open(&letters[i])
			}
			h.kickAll()
		case now := <-ticker.C:
			h.tick(now)
		case <-ctx.Done():
			return
		}
	}
}

func (h *hub) open(l *letter) {
	switch l.kind {
	case attach:
		h.attach(l)
	case detach:
		h.detach(l)
	case connected:
		h.connected()
	case marked:
		h.marked(l.round, l.mark)
	case proven:
		h.proven(l.round, l.res)
	case ended:
		sh := h.shards[l.round.shard]
		sh.flying = nil
		sh.sweep.rest(time.Now())
	}
}

// connected subscribes everybody on a new connection. What came while there was none, or
// was not read in time, is found by a sweep.
func (h *hub) connected() {
	h.feed.Renew(h.everybody)
	if h.again {
		h.d.m.disturbed[disturbedReconnect].Inc()
		h.sweepAll()
	}
	h.again = true
}

func (h *hub) tick(now time.Time) {
	users, late := 0, true
	for _, sh := range h.shards {
		if sh == nil {
			continue
		}
		users += sh.users.Len()
		h.expire(sh, now)
		late = late && sh.overdue(now)
		h.resync(sh, int(math.Ceil(float64(h.d.cfg.ResyncPerSecond)*tickEvery.Seconds())))
		if now.After(sh.sweep.due) {
			h.startSweep(sh, now)
		}
		if now.Sub(sh.marked) >= idleMark {
			sh.probe = true
		}
	}
	h.late.Store(late)
	h.d.m.held.Set(float64(h.held))
	h.d.m.setUsers(h, users)
	h.kickAll()
}

func (h *hub) kickAll() {
	for _, sh := range h.shards {
		if sh != nil && sh.flying == nil {
			h.kick(sh)
		}
	}
}
