package lane

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

const (
	// takeOverTimeout bounds the requests of one take-over. An answer that a dying leader
	// owes does not come.
	takeOverTimeout = 2 * time.Second
	// infoTimeout bounds the question how a consumer is. While its leader is being elected
	// nobody answers, and the question is not kept for the one that wins: shorter means
	// that a lane goes on sooner, longer that a loaded server has time.
	infoTimeout = time.Second
	// pauseLeast and pauseMost bound the pause before a lane that does not answer, or
	// whose runs break, is tried again.
	pauseLeast = 50 * time.Millisecond
	pauseMost  = 500 * time.Millisecond
)

// tenure is the time that this worker works, or waits to work, one lane.
type tenure struct {
	lane int
	g    *Group
	log  *slog.Logger
	m    laneMetrics
	work context.Context // of Business; ends when the grace of a stop is over, or at Abort

	quit     chan struct{} // closed by stop, read by run and by the work goroutine
	quitOnce sync.Once
	lost     atomic.Bool // the batch at work is another worker's to repeat now

	*shift // owned by run
}

// shift is what a tenure knows of its run. Owned by the goroutine of run; the work
// goroutine uses ledger, and reads atWork, while busy.
type shift struct {
	feed    *feed
	ledger  ledger
	accused [2]uint64 // the suspects, first and last, for whom this worker has raised the count; like the ledger the work goroutine's while busy

	heir     bool   // of the pin of a worker of this name that died, until the lane is ours
	reset    string // the pin id of the last reset; "" while the lane is not ours
	unsettle string // why a reset is due; "" for none
	at       progress

	held    []item // taken and not begun
	bytes   int    // of their payloads
	atWork  []item
	busy    bool       // a work goroutine runs
	done    chan error // written by the work goroutine: what became of the batch
	ending  bool       // quit was seen
	links   uint64     // reconnects of the connection
	breaks  int        // resets since the last commit
	pauseTo time.Time  // nothing is asked before
	asking  complain
}

// progress is where the contiguous run of deliveries stands.
type progress struct {
	want    uint64 // consumer sequence of the next message
	last    uint64 // stream sequence of the last message taken; 0: none since the reset
	empty   uint64 // the stream has nothing behind last and before this sequence; see whole
	pending uint64 // messages behind it
}

func newTenure(g *Group, lane int, work context.Context) *tenure {
	t := &tenure{
		lane: lane, g: g, log: g.log.With("lane", lane), m: g.m.lane(lane), work: work, quit: make(chan struct{}),
	}
	t.shift = &shift{
		feed:   newFeed(g.js, lane, g.cfg.Batch, g.cfg.PinnedTTL),
		ledger: ledger{js: g.js, lane: lane}, done: make(chan error, 1), links: g.js.Conn().Stats().Reconnects,
		asking: complain{log: t.log, text: "messages of a lane cannot be asked for, trying again"},
	}
	return t
}

// stop lets the batch at work end, and the lane be released. It may be called often.
func (t *tenure) stop() { t.quitOnce.Do(func() { close(t.quit) }) }

// run returns when the lane was released, or the group aborted.
func (t *tenure) run() {
	defer t.ended()
	defer t.feed.close()
	if t.heir {
		t.inheritPin()
	}
	if err := t.feed.open(); err != nil {
		t.log.Error("inbox of a lane", "error", err) // the connection is closed for good
		t.pause()
	}
	tick := time.NewTicker(t.feed.expires / 4)
	defer tick.Stop()
	prolong := time.NewTicker(t.g.cfg.AckWait / 3)
	defer prolong.Stop()
	quit, over := t.quit, t.work.Done()
	for {
		if t.ending && !t.busy {
			t.release()
			return
		}
		t.step()
		select {
		case m := <-t.feed.in:
			t.take(m)
			t.drain()
		case err := <-t.done:
			t.finish(err)
		case <-tick.C:
			t.check()
		case <-prolong.C:
			t.prolong()
			t.recount()
		case <-quit:
			t.ending, quit = true, nil
		case <-over:
			t.ending, over = true, nil
		}
	}
}

// step does what can be done now: settle a doubtful run, begin a batch, ask for more.
func (t *tenure) step() {
	if t.ending || time.Now().Before(t.pauseTo) {
		return
	}
	if t.unsettle != "" && !t.busy {
		t.takeOver()
	}
	if t.unsettle == "" && !t.busy && len(t.held) > 0 {
		t.begin()
	}
	held := len(t.held)
	if t.unsettle != "" {
		held = t.feed.batch // nothing new before the reset, but the pin must live
	}
	if err := t.feed.pull(held, t.bytes); err != nil {
		t.pause()
	}
}

// drain takes what has come without waiting, so that batches grow under load.
func (t *tenure) drain() {
	for range t.g.cfg.Batch {
		select {
		case m := <-t.feed.in:
			t.take(m)
		default:
			return
		}
	}
}

func (t *tenure) take(m *nats.Msg) {
	is, err := t.feed.status(m)
	switch {
	case errors.Is(err, errPinLost):
		t.lose()
		return
	case err != nil: // none answers, or the consumer is not as it must be
		t.asking.on(err)
		t.lookForConsumer()
		return
	case is:
		t.hear()
		t.measure()
		t.lookForOrphans()
		return
	}
	d, ok := parseDelivery(m.Reply)
	if !ok {
		return // not JetStream's: nobody else should know the inbox
	}
	if pin := m.Header.Get(pinHeader); pin != t.reset {
		t.feed.pin = pin
		t.unsettled("taken over")
		return
	}
	if t.unsettle != "" {
		return // comes again after the reset
	}
	if d.deliveries != 1 || d.consumerSeq != t.at.want || d.streamSeq <= t.at.last || !t.whole(d.streamSeq) {
		t.unsettled("run broken")
		return
	}
	t.at = progress{want: d.consumerSeq + 1, last: d.streamSeq, empty: t.at.empty, pending: d.pending}
	t.held = append(t.held, newItem(t.lane, m, d))
	t.bytes += len(m.Data)
	t.hear()
}

// hear notes that the lane's consumer answers, and that nothing has to be put right first.
func (t *tenure) hear() {
	if t.unsettle == "" {
		t.m.heard.Store(time.Now().UnixNano())
	}
}

// unsettled drops what was fetched; the next step resets the consumer as soon as no
// batch is at work.
func (t *tenure) unsettled(why string) {
	if t.unsettle == "" {
		t.unsettle = why
	}
	t.held, t.bytes = nil, 0
}

// lose is the end of the ownership, by the server's word. The tenure goes on waiting.
func (t *tenure) lose() {
	t.lost.Store(true)
	t.held, t.bytes = nil, 0
	t.m.heard.Store(0)
	t.reset, t.unsettle, t.feed.pin = "", "", ""
	if err := t.feed.open(); err != nil {
		t.pause()
	}
}

// pause puts the next try off, longer each time until a batch is committed.
func (t *tenure) pause() {
	t.breaks++
	t.pauseTo = time.Now().Add(min(pauseLeast<<min(t.breaks, 10), pauseMost))
}

// check is done some times in the life of a pin.
func (t *tenure) check() {
	nc := t.g.js.Conn()
	if links := nc.Stats().Reconnects; links != t.links && nc.IsConnected() {
		t.links = links
		if t.reset != "" {
			t.unsettled("reconnected") // what was under way may be gone
		} else if err := t.feed.open(); err != nil {
			t.pause()
		}
	}
	if t.heir && t.reset == "" && t.feed.pin == "" { // a request that the dead one left has got the pin
		t.inheritPin()
	}
	t.measure()
}

func (t *tenure) measure() {
	if t.reset == "" {
		t.unmeasured()
		return
	}
	t.m.lag.Set(float64(t.at.pending) + float64(len(t.held)+len(t.atWork)))
	t.m.oldest.Set(t.age().Seconds())
}

// recount asks how much waits behind a batch that takes long: deliveries tell it otherwise,
// and there are none while enough is held.
func (t *tenure) recount() {
	if !t.busy || t.reset == "" || time.Since(t.feed.pulled) < t.feed.expires {
		return
	}
	if c, err := t.consumer(t.work); err == nil {
		t.at.pending = c.NumPending
		t.measure()
	}
}

// ended is what is shown of a lane when its tenure is over.
func (t *tenure) ended() {
	t.unmeasured()
	t.m.heard.Store(0)
}

// unmeasured is what is shown of a lane that is another's.
func (t *tenure) unmeasured() {
	t.m.lag.Set(0)
	t.m.oldest.Set(0)
}

// age is that of the oldest message which is here, by the edge's clock; 0: there is none,
// or it does not tell.
func (t *tenure) age() time.Duration {
	for _, items := range [...][]item{t.atWork, t.held} {
		if len(items) > 0 && !items[0].ev.Time.IsZero() {
			return max(time.Since(items[0].ev.Time), 0)
		}
	}
	return 0
}

// lookForConsumer finds out why nobody answers: a leader is being elected, or the
// stream or its consumer is gone.
func (t *tenure) lookForConsumer() {
	t.pause()
	_, err := t.consumer(t.work)
	if missing(err) {
		t.lose()
		t.g.cfg.Missing("consumer of " + stream.Up(t.lane))
	}
}

// takeOver makes the run ours: what may have been in flight is known, the record says
// who owns, the consumer stands at its ack floor. It is done again when it fails.
func (t *tenure) takeOver() {
	ctx, cancel := context.WithTimeout(t.work, takeOverTimeout)
	defer cancel()
	err := t.settle(ctx)
	switch {
	case err == nil:
		t.m.takeOver(t.unsettle)
		t.log.Info("lane begun at its ack floor", "why", t.unsettle, "suspects_until", t.ledger.rec.Until)
		t.reset, t.unsettle, t.heir, t.at = t.feed.pin, "", false, progress{want: 1}
		if t.breaks > 0 {
			t.pause()
		}
		t.breaks++
	case t.work.Err() != nil:
	default:
		t.log.Warn("take-over of a lane failed, trying again", "error", err)
		if missing(err) {
			t.g.cfg.Missing(stream.Up(t.lane) + " or bucket " + stream.Suspects)
		}
		t.pause()
	}
}

func (t *tenure) settle(ctx context.Context) error {
	if err := t.feed.open(); err != nil {
		return err
	}
	c, err := t.consumer(ctx)
	if err != nil {
		return err
	}
	if err := t.ledger.load(ctx); err != nil {
		return err
	}
	if t.ledger.rec.Owner != t.me() { // the count is not what it was here
		t.accused = [2]uint64{}
	}
	if err := t.ledger.store(ctx, t.inherit(c)); err != nil {
		return err
	}
	_, err = t.g.js.ResetConsumer(ctx, stream.Up(t.lane), stream.Consumer)
	return err
}

// lookForOrphans resets a lane that has no owner and has messages which an owner took
// and did not acknowledge: without new messages they would come only after the ack wait.
func (t *tenure) lookForOrphans() {
	if t.reset != "" || t.unsettle != "" || t.ending || t.busy { // while busy the ledger is the worker's
		return
	}
	ctx, cancel := context.WithTimeout(t.work, takeOverTimeout)
	defer cancel()
	c, err := t.consumer(ctx)
	if err != nil || c.NumAckPending == 0 || pinned(c) {
		return // the next pull says what is wrong, if anything is
	}
	if err := t.settle(ctx); err != nil {
		t.pause()
		return
	}
	t.log.Info("lane had messages of an owner that is gone", "suspects_until", t.ledger.rec.Until)
}

// consumer asks how the lane's consumer is.
func (t *tenure) consumer(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	c, err := t.g.js.Consumer(ctx, stream.Up(t.lane), stream.Consumer)
	if err != nil {
		return nil, err
	}
	return c.CachedInfo(), nil
}

func pinned(c *jetstream.ConsumerInfo) bool {
	for _, g := range c.PriorityGroups {
		if g.PinnedClientID != "" {
			return true
		}
	}
	return false
}

// me is this worker's name in the record.
func (t *tenure) me() string { return t.g.cfg.Worker + "/" + t.g.nonce }

// inherit returns the record of the new owner. After a death, what was in flight is under
// suspicion, and suspects that were worked together are worked one by one. A lane without
// a record was never worked.
func (t *tenure) inherit(c *jetstream.ConsumerInfo) record {
	me := t.me()
	old := t.ledger.rec
	if !old.Consumer.Equal(c.Created) {
		old = record{Owner: old.Owner, Clean: old.Clean} // its sequences are another stream's
	}
	next := old
	next.Owner, next.Consumer, next.Clean = me, c.Created, false
	if died := t.ledger.rev != 0 && !old.Clean && old.Owner != me; died {
		if c.NumAckPending > 0 || c.Delivered.Stream > c.AckFloor.Stream {
			next.Until = max(next.Until, c.Delivered.Stream)
		}
		if old.Count > 0 && old.Last > 0 {
			next.Single, next.Suspect, next.Last, next.Count = old.Last, 0, 0, 0
		}
	}
	if next.Until <= c.AckFloor.Stream {
		next = next.acquitted()
	}
	return next
}
