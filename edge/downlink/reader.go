package downlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	directGet = "$JS.API.DIRECT.GET." // and the stream's name: ADR-31, batches since nats-server 2.11

	readTimeout  = 2 * time.Second        // without any part of an answer
	readPatience = 4 * time.Second        // for a read altogether, stale replicas included
	nobodyFor    = 500 * time.Millisecond // the same while no replica answers at all: the stream may be gone
	freshFor     = time.Second            // see firstFrom
	lastsBytes   = 32 << 20               // of one answer to lasts
	answerQueue  = 2 * 1025               // messages: an answer, and one that came too late
)

var (
	errUnread = errors.New("stream could not be read")
	errStale  = errors.New("replica is behind")
	errNobody = errors.New("no replica answers")
	errHole   = errors.New("a part of an answer was lost")
)

// getRequest is the body of a direct get.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
}

// reader reads a stream by direct gets, which any replica answers: each method says how
// it knows that the answer is not from a stale one. Not for concurrent use.
type reader struct {
	publish func(subject, reply string, body []byte) error // nats.Conn's, but in tests
	m       *metrics
	inbox   string
	answer  chan *nats.Msg
	n       int
}

func newReader(nc *nats.Conn, m *metrics) (*reader, error) {
	r := &reader{publish: nc.PublishRequest, m: m, inbox: nc.NewInbox() + ".", answer: make(chan *nats.Msg, answerQueue)}
	_, err := nc.ChanSubscribe(r.inbox+"*", r.answer)
	return r, err
}

// end is how an answer ended.
type end struct {
	status  string // "204": all there is, or as much as was asked for
	pending uint64 // messages that are left
	upTo    uint64 // of multi_last: the last message that the replica knew
}

// ask sends one request and passes each message of the answer on.
func (r *reader) ask(ctx context.Context, stream string, req getRequest, each func(*nats.Msg)) (end, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return end{}, err
	}
	r.n++
	reply := r.inbox + strconv.Itoa(r.n)
	if err := r.publish(directGet+stream, reply, body); err != nil {
		return end{}, fmt.Errorf("direct get: %w", err)
	}
	return r.collect(ctx, reply, each)
}

// collect passes on the messages of one answer. Each names the one before it, the end the
// last: nats.go drops what does not fit in the queue, and says so to nobody here.
func (r *reader) collect(ctx context.Context, reply string, each func(*nats.Msg)) (end, error) {
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	for last := uint64(0); ; {
		select {
		case m := <-r.answer:
			if m.Subject != reply { // of a request that was given up
				continue
			}
			status := first(m, "Status")
			if status == "503" {
				return end{}, errNobody
			}
			if (status == "" || status == "204") && number(m, hLast) != last {
				return end{}, errHole
			}
			if status != "" {
				return end{status: status, pending: number(m, hPending), upTo: number(m, hUpTo)}, nil
			}
			last = number(m, hSequence)
			each(m)
			timeout.Reset(readTimeout)
		case <-timeout.C:
			return end{}, fmt.Errorf("direct get: %w", context.DeadlineExceeded)
		case <-ctx.Done():
			return end{}, ctx.Err()
		}
	}
}

// retry calls try until it succeeds, fails for good, or the patience is over. A stale
// answer or a missing one is worth another try.
func (r *reader) retry(ctx context.Context, patience time.Duration, try func() error) error {
	wait := 2 * time.Millisecond
	began := time.Now()
	for ; ; wait = min(2*wait, 200*time.Millisecond) {
		err := try()
		if err == nil || errors.Is(err, errTooMuch) || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errStale) {
			r.m.events[evStale].Inc()
		} else {
			r.m.events[evReadError].Inc()
		}
		if d := time.Since(began); d > patience || d > nobodyFor && errors.Is(err, errNobody) {
			return fmt.Errorf("%w: %w", errUnread, err)
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// lasts returns the last message of those of the subjects that have any from seq on. It may
// lie behind the marker at upto, which is asked for as well: a replica that does not know it
// does not know everything before it.
//
// The answer is not bounded by up_to_seq: nats-server 2.15 walks through all that the stream
// holds then, with the stream locked, as soon as anything was stored behind the bound; for
// the very last messages it looks where they are.
func (r *reader) lasts(ctx context.Context, stream string, subjects map[string]bool, marker string, seq, upto uint64) (map[string]uint64, error) {
	req := getRequest{Seq: seq, MaxBytes: lastsBytes, MultiLast: make([]string, 0, len(subjects)+1)}
	for s := range subjects {
		req.MultiLast = append(req.MultiLast, s)
	}
	req.MultiLast = append(req.MultiLast, marker)
	last := make(map[string]uint64, len(subjects))
	err := r.retry(ctx, readPatience, func() error {
		// From the beginning: another replica answers, which may know less than the one
		// whose answer broke off.
		clear(last)
		req.Seq = seq
		for known := uint64(0); ; {
			before := req.Seq
			e, err := r.ask(ctx, stream, req, func(m *nats.Msg) {
				n := number(m, hSequence)
				last[first(m, hSubject)] = n
				req.Seq = max(req.Seq, n+1)
			})
			switch {
			case err != nil:
				return err
			case e.status != "204" || e.upTo < max(upto, known):
				return fmt.Errorf("%w: it does not know the marker, or less than the one before", errStale)
			case e.pending == 0 && last[marker] >= upto:
				return nil
			case e.pending == 0 || req.Seq == before:
				return fmt.Errorf("%w: it does not have the marker", errStale)
			}
			known = e.upTo
		}
	})
	delete(last, marker)
	return last, err
}

// behind returns the messages of one subject after from, up to upto. last is the last of
// them, from lasts: an answer that does not reach it is from a stale replica.
func (r *reader) behind(ctx context.Context, stream, subj string, from, last, upto uint64) ([]*nats.Msg, error) {
	var msgs []*nats.Msg
	next, bytes, reached := from+1, 0, uint64(0)
	err := r.retry(ctx, readPatience, func() error {
		for {
			before := next
			req := getRequest{Seq: next, NextFor: subj, Batch: MaxReplay - len(msgs) + 2, MaxBytes: MaxReplayBytes}
			e, err := r.ask(ctx, stream, req, func(m *nats.Msg) {
				reached = number(m, hSequence)
				next = reached + 1
				if reached <= upto {
					msgs = append(msgs, m)
					bytes += len(m.Data)
				}
			})
			switch {
			case len(msgs) > MaxReplay || bytes > MaxReplayBytes:
				return errTooMuch
			case err != nil:
				return err
			case reached >= last || reached > upto:
				return nil
			case e.status != "204" || next == before || e.pending == 0:
				return fmt.Errorf("%w: it ends before the last message", errStale)
			}
		}
	})
	return msgs, err
}

// firstFrom returns the sequence of the first message from seq on, as a replica tells it
// that knows the message at known. seq itself means that nothing from there on was
// evicted. How much a replica knows is computed from its count of messages; where single
// messages were deleted by hand that is too little, so after freshFor the answer is
// taken as it is.
func (r *reader) firstFrom(ctx context.Context, stream string, seq, known uint64) (found uint64, err error) {
	began := time.Now()
	err = r.retry(ctx, readPatience, func() error {
		var last uint64
		e, err := r.ask(ctx, stream, getRequest{Seq: seq, NextFor: ">", Batch: 1}, func(m *nats.Msg) {
			found = number(m, hSequence)
			last = found + number(m, hPending)
		})
		switch {
		case err != nil:
			return err
		case found == 0 || e.status != "204":
			return fmt.Errorf("%w: it ends before the position", errStale)
		case last < known && time.Since(began) < freshFor:
			return errStale
		}
		return nil
	})
	return found, err
}

// age is that of the first message of a stream from which some were evicted; 0 when none
// was, or nobody tells.
func (r *reader) age(ctx context.Context, stream string) (age time.Duration) {
	_, _ = r.ask(ctx, stream, getRequest{Seq: 1, NextFor: ">", Batch: 1}, func(m *nats.Msg) {
		at, err := time.Parse(time.RFC3339Nano, first(m, hTime))
		if err == nil && number(m, hSequence) > 1 {
			age = max(time.Since(at), time.Millisecond)
		}
	})
	return age
}
