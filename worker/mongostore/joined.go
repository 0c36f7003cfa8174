package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	// fullInsert is from how many messages on the store counts as busy: then the next insert
	// begins no sooner than insertPace after the last one, so that it is worth its price. A
	// store with less to do is asked at once.
	fullInsert = 8
	insertPace = 5 * time.Millisecond
	// joinMessages and joinBytes are the most messages, and bytes of documents, of one joined
	// insert; a larger insert of one call goes alone.
	joinMessages = 1024
	joinBytes    = maxCommand
)

// errInCompany is returned when an insert failed that several Appends had joined: any of
// them may be the reason. Each repeats by itself what it wants.
var errInCompany = errors.New("the inserts of several lanes failed together")

// joined is a backend that lets the unordered inserts of concurrent Appends go to the
// store together: what comes while one is there goes out in the next. An insert costs the
// store as much as some twenty documents, most of it for the journal and the majority.
//
// A message that finds the store with little to do is not put off. No conversation is
// twice in an insert, because flights gives each to one Append at a time. Its methods may
// be called concurrently.
type joined struct {
	backend
	m *metrics

	mu      sync.Mutex
	waiting []*member // in the order of their calls
	flying  bool      // a joined insert is at the store, or is being put off
	next    time.Time // no joined insert begins before
}

// member is one call's part of a joined insert.
type member struct {
	entries []*entry
	bytes   int           // of its documents, about
	trip    *trip         // nil while it waits
	done    chan struct{} // closed when refused and err are there
	refused []refusal
	err     error
}

// trip is one joined insert.
type trip struct {
	members []*member
	left    int             // members whose callers have given up
	ctx     context.Context // of the insert: it outlives each of its callers but not all
	cancel  context.CancelFunc
}

// joining returns an appender like a, whose unordered inserts go to the store together
// with those of its other calls.
func (a *appender) joining() *appender {
	b := *a
	b.back = &joined{backend: a.back, m: a.m}
	return &b
}

// companyFirst repeats an Append alone that failed in company: what one of them can never
// have stored must not hold the others. Nothing is known of it after the failure, so it is
// a whole attempt, as the lane would make it.
func companyFirst(ctx context.Context, joining, alone *appender,
	attempt func(*appender) ([]messaging.Appended, error),
) ([]messaging.Appended, error) {
	res, err := attempt(joining)
	if errors.Is(err, errInCompany) && ctx.Err() == nil {
		return attempt(alone)
	}
	return res, err
}

// insert implements backend. A caller whose ctx ends leaves; the insert goes on for the
// others, and may go on without any.
func (j *joined) insert(ctx context.Context, entries []*entry, ordered bool) ([]refusal, error) {
	if ordered || ctx.Err() != nil {
		return j.backend.insert(ctx, entries, ordered)
	}
	m := &member{entries: entries, bytes: documentBytes(entries), done: make(chan struct{})}
	j.mu.Lock()
	j.waiting = append(j.waiting, m)
	j.start()
	j.mu.Unlock()
	select {
	case <-m.done:
		return m.refused, m.err
	case <-ctx.Done():
		j.leave(m)
		return nil, fmt.Errorf("insert: %w", ctx.Err())
	}
}

// start sends what waits, when nothing is at the store. j.mu is held.
func (j *joined) start() {
	if j.flying || len(j.waiting) == 0 {
		return
	}
	j.flying = true
	if early := time.Until(j.next); early > 0 {
		time.AfterFunc(early, j.fly)
		return
	}
	go j.fly()
}

// together is how many of the members that wait go into the next insert: one at least.
func together(waiting []*member) int {
	entries, bytes := 0, 0
	for i, m := range waiting {
		entries += len(m.entries)
		bytes += m.bytes
		if i > 0 && (entries > joinMessages || bytes > joinBytes) {
			return i
		}
	}
	return len(waiting)
}

// fly makes one insert and tells its members what became of theirs.
func (j *joined) fly() {
	t := j.board()
	if t == nil {
		return
	}
	defer t.cancel()
	var all []*entry
	for _, m := range t.members {
		all = append(all, m.entries...)
	}
	j.m.joined.Observe(float64(len(all)))
	began := time.Now()
	refused, err := j.backend.insert(t.ctx, all, false)
	j.mu.Lock()
	j.flying = false
	if len(all) >= fullInsert {
		j.next = began.Add(insertPace)
	}
	j.start()
	j.mu.Unlock()
	t.answer(refused, err)
}

// board makes a trip of what waits; nil when all have left meanwhile.
func (j *joined) board() *trip {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := together(j.waiting)
	if n == 0 {
		j.flying = false
		return nil
	}
	t := &trip{members: slices.Clone(j.waiting[:n])}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for _, m := range t.members {
		m.trip = t
	}
	j.waiting = slices.Delete(j.waiting, 0, n)
	return t
}

// answer gives each member its share of the refusals, or all of them the error.
func (t *trip) answer(refused []refusal, err error) {
	if err != nil && len(t.members) > 1 {
		err = fmt.Errorf("%w: %w", errInCompany, err)
	}
	first := 0
	for _, m := range t.members {
		m.err = err
		for _, r := range refused {
			if i := r.index - first; err == nil && 0 <= i && i < len(m.entries) {
				r.index = i
				m.refused = append(m.refused, r)
			}
		}
		first += len(m.entries)
		close(m.done)
	}
}

// leave takes a member out whose caller has given up.
func (j *joined) leave(m *member) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if m.trip == nil {
		j.waiting = slices.DeleteFunc(j.waiting, func(w *member) bool { return w == m })
		return
	}
	if m.trip.left++; m.trip.left == len(m.trip.members) {
		m.trip.cancel()
	}
}
