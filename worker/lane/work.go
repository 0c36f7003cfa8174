package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	retryLeast = 100 * time.Millisecond
	retryMost  = 2 * time.Second

	// deaths is how often a message may be the suspect of a death before it is dead.
	deaths = 2

	// crowd is how many suspects are worked together at most. A worker that dies over them
	// says that the killer is among them, and they are worked one by one: one death more,
	// but not a write and a commit for each message that a crash left behind.
	crowd = 16

	// innocent is how long a suspect must be at work to be struck off: what kills does so
	// at once, and while the store is away a worker may be killed for other reasons.
	innocent = time.Second
)

var (
	ackAck  = []byte("+ACK")
	ackWork = []byte("+WPI") // work in progress: the ack wait starts again
)

// errGivenUp is returned when a batch is not this worker's to commit any more: the lane
// is another's, or the worker stops. Nothing is known of its messages.
var errGivenUp = errors.New("batch given up")

// begin starts the work goroutine on what is held: a few messages while there may be a
// suspect among them, else up to a whole batch.
func (t *tenure) begin() {
	suspects := t.suspects()
	most := min(len(t.held), t.g.cfg.Batch)
	if suspects > 0 {
		most = suspects
	}
	n, bytes := 0, 0
	for n < most && bytes < maxBytes {
		bytes += len(t.held[n].msg.Data)
		n++
	}
	t.bytes -= bytes
	t.atWork, t.held = t.held[:n:n], t.held[n:]
	if len(t.held) == 0 {
		t.held = nil
	}
	t.lost.Store(false)
	t.busy = true
	t.m.batch.Observe(float64(n))
	items := t.atWork
	go func() { t.done <- t.commit(items, suspects > 0) }()
}

// suspects is how many of what is held are to be worked next as suspects; 0: the next
// message is none.
func (t *tenure) suspects() int {
	rec := &t.ledger.rec
	switch first := t.held[0].streamSeq; {
	case first > rec.Until:
		return 0
	case first <= rec.Single, rec.Count > 0 && first == rec.Suspect:
		return 1
	}
	n := 1
	for n < min(len(t.held), crowd) {
		if seq := t.held[n].streamSeq; seq > rec.Until || rec.Count > 0 && seq == rec.Suspect {
			break
		}
		n++
	}
	return n
}

// finish acknowledges a committed batch. An ack that is lost means that its message
// comes again and is found to be known.
func (t *tenure) finish(err error) {
	items := t.atWork
	t.atWork, t.busy = nil, false
	switch {
	case t.g.abort.Err() != nil:
	case err == nil:
		nc := t.g.js.Conn()
		for i := range items {
			if err := nc.Publish(items[i].msg.Reply, ackAck); err != nil {
				break // not connected: the reconnect unsettles the run
			}
		}
		for i := range items {
			if items[i].early {
				t.m.skipped.Inc()
			} else {
				t.m.worked.Inc()
			}
		}
		t.breaks = 0
	case errors.Is(err, errReplaced):
		t.lose()
	default:
		if t.reset != "" {
			t.unsettled("batch given up")
		}
	}
	t.measure()
}

// prolong tells the server that everything here is still wanted here.
func (t *tenure) prolong() {
	nc := t.g.js.Conn()
	for _, items := range [][]item{t.atWork, t.held} {
		for i := range items {
			if nc.Publish(items[i].msg.Reply, ackWork) != nil {
				return
			}
		}
	}
}

// commit works items until they are done, or until that is somebody else's duty. It
// runs on the work goroutine.
func (t *tenure) commit(items []item, suspects bool) error {
	if suspects {
		it, rec := &items[0], t.ledger.rec
		if len(items) == 1 && rec.Suspect == it.streamSeq && rec.Last == 0 && rec.Count >= deaths {
			return t.bury(it, fmt.Sprintf("worker died %d times while it worked this message alone", rec.Count))
		}
		return t.commitAll(items, items)
	}
	if t.ledger.rec.Until != 0 {
		err := t.retry("lane's record cannot be written, trying again", func() error {
			return t.persist(func(r *record) { *r = r.acquitted() })
		})
		if err != nil {
			return err
		}
	}
	return t.commitAll(items, nil)
}

// commitAll works the batch; when that panics, each message by itself, and a message
// that panics is dead. suspects is nil, or all of the items.
func (t *tenure) commitAll(items, suspects []item) error {
	events := make([]envelope.Event, 0, len(items))
	from := make([]int, 0, len(items)) // index of the event → of the item
	for i := range items {
		if items[i].bad == "" && !items[i].early {
			events, from = append(events, items[i].ev), append(from, i)
		}
	}
	if len(events) > 0 {
		dead, err := t.try(events, suspects)
		var p *panicked
		switch {
		case errors.As(err, &p) && len(items) == 1:
			return t.bury(&items[0], p.Error())
		case p != nil: // one by one, and suspects stay suspects: a killer may be behind what panics
			for i := range items {
				one := items[i : i+1]
				if suspects == nil {
					err = t.commitAll(one, nil)
				} else {
					err = t.commitAll(one, one)
				}
				if err != nil {
					return err
				}
			}
			return nil
		case err != nil:
			return err
		}
		t.markDead(items, from, dead)
	}
	for i := range items {
		if items[i].bad != "" {
			if err := t.bury(&items[i], items[i].bad); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tenure) markDead(items []item, from []int, dead []messaging.Dead) {
	for _, d := range dead {
		if d.Index < 0 || d.Index >= len(from) {
			t.log.Error("business named an event that is not in the batch as dead", "index", d.Index, "events", len(from))
			continue
		}
		items[from[d.Index]].bad = d.Reason
	}
}

// panicked is a panic of the Business.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprintf("worker panicked: %.200v", p.value) }

// try calls Work until it returns no error. A panic ends it early.
func (t *tenure) try(events []envelope.Event, suspects []item) (dead []messaging.Dead, err error) {
	var p *panicked
	err = t.retry("batch cannot be committed, lane waits and tries again", func() (err error) {
		dead, err = t.once(events, suspects)
		if errors.As(err, &p) {
			return nil
		}
		return err
	})
	if err == nil && p != nil {
		return nil, p
	}
	return dead, err
}

// once is one try. Suspects are written down before it, and struck off when the worker
// survives; one that was there when a worker died is worked while no other lane of this
// process works, or a killer among those would make it look guilty.
func (t *tenure) once(events []envelope.Event, suspects []item) ([]messaging.Dead, error) {
	if len(suspects) > 0 && t.ledger.rec.Suspect == suspects[0].streamSeq && t.ledger.rec.Count > 0 {
		t.g.alone.Lock()
		defer t.g.alone.Unlock()
	} else {
		t.g.alone.RLock()
		defer t.g.alone.RUnlock()
	}
	if suspects == nil {
		return t.call(events)
	}
	first, last := suspects[0].streamSeq, uint64(0)
	if n := len(suspects); n > 1 {
		last = suspects[n-1].streamSeq
	}
	err := t.persist(func(r *record) {
		if r.Suspect != first || r.Last != last {
			r.Suspect, r.Last, r.Count = first, last, 0
		}
		if t.accused != [2]uint64{first, last} { // a try after the first is no other worker's death
			r.Count++
		}
	})
	if err != nil {
		return nil, err
	}
	t.accused = [2]uint64{first, last}
	acquit := func() error {
		err := t.persist(func(r *record) { r.Count-- })
		if err == nil {
			t.accused = [2]uint64{}
		}
		return err
	}
	var late error
	acquitted := make(chan struct{})
	timer := time.AfterFunc(innocent, func() {
		defer close(acquitted)
		late = acquit()
	})
	dead, err := t.call(events)
	switch {
	case !timer.Stop():
		<-acquitted
		err = errors.Join(err, late)
	case err != nil && t.g.abort.Err() == nil:
		err = errors.Join(err, acquit())
	}
	return dead, err
}

func (t *tenure) call(events []envelope.Event) (dead []messaging.Dead, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.m.panics.Inc()
			t.log.Error("business panicked", "panic", v, "stack", string(debug.Stack()), "events", len(events))
			dead, err = nil, &panicked{v}
		}
	}()
	return t.g.business.Work(t.work, events)
}

// persist changes the lane's record.
func (t *tenure) persist(change func(*record)) error {
	rec := t.ledger.rec
	change(&rec)
	ctx, cancel := context.WithTimeout(t.g.abort, callTimeout)
	defer cancel()
	err := t.ledger.store(ctx, rec)
	if missing(err) {
		t.g.cfg.Missing("bucket " + stream.Suspects)
	}
	return err
}

// retry does f until it returns nil, or errReplaced. It returns errGivenUp when the lane
// is another's, or the worker stops.
func (t *tenure) retry(trouble string, f func() error) error {
	failing := complain{log: t.log, text: trouble}
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		err := f()
		if err == nil {
			failing.on(nil)
			return nil
		}
		if errors.Is(err, errReplaced) {
			return errReplaced
		}
		if t.work.Err() == nil {
			failing.on(err)
			t.m.retries.Inc()
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-t.quit:
		case <-t.work.Done():
		}
		timer.Stop()
		if t.lost.Load() || t.work.Err() != nil || t.stopping() {
			t.log.Info("batch given up, it is worked again from the ack floor", "error", err)
			return errGivenUp
		}
	}
}

func (t *tenure) stopping() bool {
	select {
	case <-t.quit:
		return true
	default:
		return false
	}
}
