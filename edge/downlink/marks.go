package downlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

const (
	markEvery   = 2 * time.Second       // between two markers while none is answered
	markTimeout = 15 * time.Second      // of one marker
	markLate    = time.Second           // after which live frames may have been lost on the same way
	firstRetry  = 20 * time.Millisecond // of a marker that failed; doubles up to
	lastRetry   = time.Second           //
	misfitRetry = time.Second           // while the shard's stream is not one of this system
)

var (
	errLate   = errors.New("no answer yet")
	errMisfit = errors.New("stream does not fit this edge")
)

// mark is the answer to a marker.
type mark struct {
	name string
	down stream.DownName
	seq  uint64
	late bool // it took longer than it should: live frames may be lost
	same bool // it is of the incarnation that the round began in, and behind all that was seen of it
}

// sort settles the joins that have nothing to read. What was asked for in an incarnation
// that is over is left out: the hub has forgotten it by then, see touch.
func (m mark) sort(jobs []job) (todo []job, settled []outcome) {
	fresh := 0
	for i := range jobs {
		if jobs[i].kind == join && jobs[i].resume == "" {
			fresh++
		}
	}
	settled = make([]outcome, 0, fresh)
	for _, j := range jobs {
		if j.kind != join {
			if m.same {
				todo = append(todo, j)
			}
			continue
		}
		from, why := j.position(m)
		if why != resumedOK {
			settled = append(settled, outcome{job: j, why: why})
			continue
		}
		j.from = from
		todo = append(todo, j)
	}
	return todo, settled
}

// position returns the position of a join's token, if it can be resumed from.
func (j *job) position(m mark) (uint64, resumeResult) {
	if j.resume == "" {
		return 0, resumedFresh
	}
	in, seq, ok := parseToken(j.resume)
	switch {
	case !ok:
		return 0, resumedMalformed
	case in.epoch != m.down.Epoch || in.shard != m.down.Shard:
		return 0, resumedForeign
	case seq > m.seq:
		return 0, resumedFuture
	}
	return seq, resumedOK
}

// mark publishes markers until one is answered, behind every subscription that was made
// on the same connection before. After markEvery without an answer there is another one,
// but an answer to any of them counts: where the server needs longer than that for each, no
// marker would be answered in time.
func (p *prober) mark(ctx context.Context) (mark, error) {
	type answer struct {
		mark
		err error
	}
	began, answers := time.Now(), make(chan answer)
	asking, enough := context.WithCancel(ctx)
	var asks sync.WaitGroup
	defer asks.Wait()
	defer enough()
	ask := func() {
		m, err := p.markOnce(asking)
		select {
		case answers <- answer{m, err}:
		case <-asking.Done():
		}
	}
	again := time.NewTimer(markEvery)
	defer again.Stop()
	asks.Go(ask)
	for tries, wait, last := 1, firstRetry, errLate; ; {
		select {
		case a := <-answers:
			if a.err == nil {
				p.answered(&a.mark, time.Since(began))
				return a.mark, nil
			}
			if last = a.err; errors.Is(last, errMisfit) {
				wait = misfitRetry
			}
			again.Reset(wait + rand.N(wait/4+1))
			wait = min(2*wait, lastRetry)
		case <-again.C:
			p.unanswered(last, tries)
			asks.Go(ask)
			again.Reset(markEvery)
			tries, last = tries+1, errLate
		case <-ctx.Done():
			return mark{}, ctx.Err()
		}
	}
}

func (p *prober) answered(m *mark, took time.Duration) {
	m.late = took > markLate
	p.health.failing.Store(0)
	p.health.known.Store(true)
	p.h.d.m.marks.Observe(took.Seconds())
}

// unanswered notes why another marker is sent.
func (p *prober) unanswered(err error, tries int) {
	p.health.failing.CompareAndSwap(0, time.Now().UnixNano())
	p.h.d.m.events[evMarkRetry].Inc()
	switch {
	case errors.Is(err, errMisfit):
		p.health.known.Store(false)
		p.h.d.cfg.Log.Error("downlink shard cannot be served: edge and workers must agree on the number of shards", "shard", p.shard, "shards", p.h.d.cfg.Shards, "error", err)
	case tries == 20:
		p.h.d.cfg.Log.Warn("downlink markers are not answered", "shard", p.shard, "error", err)
	}
}

func (p *prober) markOnce(ctx context.Context) (mark, error) {
	one, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	answer, err := p.h.feed.Request(one, subject.Mark(p.shard, p.h.d.cfg.Edge))
	if err != nil {
		return mark{}, fmt.Errorf("publish marker: %w", err)
	}
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
		Error  *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return mark{}, fmt.Errorf("read answer to marker: %w", err)
	}
	if ack.Error != nil {
		return mark{}, fmt.Errorf("marker was refused: %s", ack.Error.Description)
	}
	d, err := stream.ParseDown(ack.Stream)
	if err != nil || d.Shards != p.h.d.cfg.Shards || d.Shard != p.shard {
		return mark{}, fmt.Errorf("%w: %s", errMisfit, ack.Stream)
	}
	return mark{name: ack.Stream, down: d, seq: ack.Seq}, nil
}
