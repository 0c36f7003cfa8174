package lane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	retryLeast = 100 * time.Millisecond
	retryMost  = 2 * time.Second

	// deaths is how often a message may be the suspect of a death before it is dead.
	deaths = 2
)

var (
	ackAck  = []byte("+ACK")
	ackWork = []byte("+WPI") // work in progress: the ack wait starts again
)

// outcome is what became of a batch: all of it is committed, or nothing is known.
type outcome struct {
	committed bool
	replaced  bool // another worker has written the lane's record
}

// begin starts the work goroutine on what is held: one message while there may be a
// suspect among them, else up to a whole batch.
func (t *tenure) begin() {
	n := min(len(t.held), t.g.cfg.Batch)
	solo := t.held[0].streamSeq <= t.ledger.rec.Until
	if solo {
		n = 1
	}
	t.atWork, t.held = t.held[:n:n], t.held[n:]
	if len(t.held) == 0 {
		t.held = nil
	}
	t.lost.Store(false)
	t.busy = true
	t.m.batch.Observe(float64(n))
	items := t.atWork
	go func() { t.done <- t.commit(items, solo) }()
}

// finish acknowledges a committed batch. An ack that is lost means that its message
// comes again and is found to be known.
func (t *tenure) finish(o outcome) {
	items := t.atWork
	t.atWork, t.busy = nil, false
	switch {
	case t.g.abort.Err() != nil:
	case o.committed:
		nc := t.g.js.Conn()
		for i := range items {
			if err := nc.Publish(items[i].msg.Reply, ackAck); err != nil {
				break // not connected: the reconnect unsettles the run
			}
		}
		t.m.worked.Add(float64(len(items)))
		t.breaks = 0
	case o.replaced:
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
func (t *tenure) commit(items []item, solo bool) outcome {
	exclusive := false
	if solo {
		count, err := t.suspect(items[0])
		if err != nil {
			return outcome{replaced: errors.Is(err, errReplaced)}
		}
		if count > deaths {
			reason := fmt.Sprintf("worker died %d times while it worked this message alone", deaths)
			return outcome{committed: t.bury(&items[0], reason)}
		}
		exclusive = count > 1
	} else if t.ledger.rec.Until != 0 {
		if err := t.persist(func(r *record) { r.Until, r.Suspect, r.Count = 0, 0, 0 }); err != nil {
			return outcome{replaced: errors.Is(err, errReplaced)}
		}
	}
	return outcome{committed: t.commitAll(items, exclusive)}
}

// suspect writes down that the message is worked alone now, and how often it was.
func (t *tenure) suspect(it item) (count int, err error) {
	err = t.persist(func(r *record) {
		if r.Suspect != it.streamSeq {
			r.Suspect, r.Count = it.streamSeq, 0
		}
		r.Count++
		count = r.Count
	})
	return count, err
}

// persist changes the record, and tries again until that is done or is not ours to do.
func (t *tenure) persist(change func(*record)) error {
	rec := t.ledger.rec
	change(&rec)
	var err error
	t.retry("lane's record cannot be written, trying again", func() error {
		ctx, cancel := context.WithTimeout(t.work, callTimeout)
		defer cancel()
		err = t.ledger.store(ctx, rec)
		if errors.Is(err, errReplaced) {
			return nil
		}
		if missing(err) {
			t.g.cfg.Missing("bucket suspects")
		}
		return err
	})
	return err
}

// commitAll works the batch; when that panics, each message by itself, and a message
// that panics is dead. It reports false when it gave up.
func (t *tenure) commitAll(items []item, exclusive bool) bool {
	events := make([]envelope.Event, 0, len(items))
	from := make([]int, 0, len(items)) // index of the event → of the item
	for i := range items {
		if items[i].bad == "" {
			events, from = append(events, items[i].ev), append(from, i)
		}
	}
	var dead []messaging.Dead
	if len(events) > 0 {
		var ok bool
		var p *panicked
		dead, p, ok = t.try(events, exclusive)
		switch {
		case p != nil && len(items) == 1:
			return t.bury(&items[0], p.Error())
		case p != nil:
			for i := range items {
				if !t.commitAll(items[i:i+1], exclusive) {
					return false
				}
			}
			return true
		case !ok:
			return false
		}
	}
	for _, d := range dead {
		if d.Index < 0 || d.Index >= len(from) {
			t.log.Error("business named an event that is not in the batch as dead", "index", d.Index, "events", len(events))
			continue
		}
		items[from[d.Index]].bad = d.Reason
	}
	for i := range items {
		if items[i].bad != "" && !t.bury(&items[i], items[i].bad) {
			return false
		}
	}
	return true
}

// panicked is a panic of the Business.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprintf("worker panicked: %.200v", p.value) }

// try calls Work until it returns no error. It ends early with a panic, or with ok
// false when the batch is not ours to do any more.
func (t *tenure) try(events []envelope.Event, exclusive bool) (dead []messaging.Dead, p *panicked, ok bool) {
	ok = t.retry("batch cannot be committed, lane waits and tries again", func() (err error) {
		dead, err = t.once(events, exclusive)
		if errors.As(err, &p) {
			return nil
		}
		return err
	})
	return dead, p, ok && p == nil
}

func (t *tenure) once(events []envelope.Event, exclusive bool) (dead []messaging.Dead, err error) {
	if exclusive {
		t.g.alone.Lock()
		defer t.g.alone.Unlock()
	} else {
		t.g.alone.RLock()
		defer t.g.alone.RUnlock()
	}
	defer func() {
		if v := recover(); v != nil {
			t.m.panics.Inc()
			t.log.Error("business panicked", "panic", v, "stack", string(debug.Stack()), "events", len(events))
			dead, err = nil, &panicked{v}
		}
	}()
	return t.g.business.Work(t.work, events)
}

// retry does f until it returns nil. It reports false when it gave up: the lane is
// another's, or the worker stops.
func (t *tenure) retry(trouble string, f func() error) bool {
	failing := complain{log: t.log, text: trouble}
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		err := f()
		if err == nil {
			failing.on(nil)
			return true
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
			t.log.Log(t.work, slog.LevelInfo, "batch given up, it is worked again from the ack floor", "error", err)
			return false
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
