package mongostore

import (
	"context"
	"slices"
	"time"

	"github.com/wirepost/wirepost/worker/messaging"
)

// History implements messaging.Store. A conversation that does not exist has no messages.
func (s *Store) History(ctx context.Context, q messaging.HistoryQuery) (msgs []messaging.StoredMessage, more bool, err error) {
	defer func(start time.Time) { s.m.done(opHistory, start, err) }(time.Now())
	lo, hi, descending := span(q)
	if !validConv(q.Conv) || lo > hi {
		return nil, false, nil
	}
	p := page{limit: max(1, q.Limit), maxBytes: q.MaxBytes}
	want := p.limit
	if !descending {
		want++ // to know whether there is one more; backwards the numbers tell
	}
	if err := s.reader.scan(ctx, q.Conv, lo, hi, descending, want, p.add); err != nil {
		return nil, false, err
	}
	if p.err != nil {
		return nil, false, p.err
	}
	if descending {
		slices.Reverse(p.msgs)
		return p.msgs, len(p.msgs) > 0 && p.msgs[0].Seq > 1, nil
	}
	return p.msgs, p.more, nil
}

// span is the range of numbers that a query asks for, and the direction from which the
// page is filled.
func span(q messaging.HistoryQuery) (lo, hi int64, descending bool) {
	switch {
	case q.After != nil:
		return min(max(*q.After, 0), maxSeq) + 1, maxSeq, false
	case q.Before != nil:
		return 1, min(max(*q.Before, 1)-1, maxSeq), true
	default:
		return 1, maxSeq, true
	}
}

// page gathers messages until it is full.
type page struct {
	limit    int
	maxBytes int // of bodies; the first message is always taken
	msgs     []messaging.StoredMessage
	bytes    int
	more     bool // there was one that did not fit
	err      error
}

// add takes the next message and reports whether another one is wanted.
func (p *page) add(d *messageDoc) bool {
	if len(p.msgs) == p.limit || len(p.msgs) > 0 && p.bytes+len(d.Body) > p.maxBytes {
		p.more = true
		return false
	}
	m, err := d.message()
	if err != nil {
		p.err = err
		return false
	}
	p.bytes += len(d.Body)
	p.msgs = append(p.msgs, m)
	return true
}
