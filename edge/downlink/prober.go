package downlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

const (
	markTimeout = 2 * time.Second       // of one marker
	markLate    = time.Second           // after which live frames may have been lost on the same way
	firstRetry  = 20 * time.Millisecond // of a marker; doubles up to
	lastRetry   = time.Second           //
	misfitRetry = time.Second           // while the shard's stream is not one of this system
	readers     = 16                    // direct gets of a shard under way at once
	postBytes   = 16 << 20              // of read frames, at which results are proven and handed over
)

var (
	errMoved   = errors.New("another incarnation of the stream began during the round")
	errMisfit  = errors.New("stream does not fit this edge")
	errTooMuch = errors.New("more was missed than is replayed")
)

// prober works the rounds of a shard, one at a time. It runs on a goroutine of its own
// because it waits for answers; it tells the hub everything by letters.
type prober struct {
	h      *hub
	shard  int
	health *health
	reader *reader
	spare  []*reader // for replays, several at a time
}

// outcome is what became of a job.
type outcome struct {
	job    job
	why    resumeResult
	frames []entry // behind job.from, up to the marker
	last   uint64  // the user's last frame up to the marker; 0: none behind the round's first position
}

// results of a round, or of a part of it.
type results struct {
	to       uint64 // the marker
	first    uint64 // a replica that knows everything read holds all messages from here on
	outcomes []outcome
	swept    []sweptUser
	unswept  bool          // the round's part of a sweep could not be read
	age      time.Duration // of the stream's first message, when any was evicted; else 0
}

func (p *prober) run(ctx context.Context, r *round) {
	defer p.h.box.put(letter{kind: ended, round: r})
	var err error
	if p.reader == nil {
		if p.reader, err = newReader(p.h.reads, p.h.d.m); err != nil { // the connection is closed for good
			return
		}
	}
	jobs := r.jobs
	for range 3 {
		if jobs, err = p.pass(ctx, r, jobs); !errors.Is(err, errMoved) {
			return
		}
	}
	p.fail(r, jobs, resumedUnread, 0)
}

// pass does the round for jobs; with errMoved it returns those that are left.
func (p *prober) pass(ctx context.Context, r *round, jobs []job) ([]job, error) {
	if !r.mark { // checks alone: they are answered by what the stream holds, up to their frame
		return p.check(ctx, r, jobs)
	}
	m, err := p.mark(ctx)
	if err != nil {
		return nil, err
	}
	m.same = m.name == r.name && m.seq > r.high
	r.name, r.high = m.name, m.seq
	p.h.box.put(letter{kind: marked, round: r, mark: m})
	todo, settled := m.sort(jobs)
	if len(settled) > 0 {
		p.h.box.put(letter{kind: proven, round: r, res: &results{to: m.seq, outcomes: settled}})
	}
	swept := r.swept
	if !m.same {
		swept = nil
	}
	if len(todo) == 0 && len(swept) == 0 {
		if r.ages {
			p.h.box.put(letter{kind: proven, round: r, res: &results{age: p.reader.age(ctx, m.name)}})
		}
		return nil, nil
	}
	return p.read(ctx, r, m, todo, swept)
}

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
// on the same connection before.
func (p *prober) mark(ctx context.Context) (mark, error) {
	wait, began := firstRetry, time.Now()
	subj := subject.Mark(p.shard, p.h.d.cfg.Edge)
	for try := 0; ; try++ {
		m, err := p.markOnce(ctx, subj)
		if err == nil {
			m.late = time.Since(began) > markLate
			p.health.failing.Store(0)
			p.health.known.Store(true)
			p.h.d.m.marks.Observe(time.Since(began).Seconds())
			return m, nil
		}
		if ctx.Err() != nil {
			return mark{}, ctx.Err()
		}
		p.health.failing.CompareAndSwap(0, time.Now().UnixNano())
		p.h.d.m.events[evMarkRetry].Inc()
		if errors.Is(err, errMisfit) {
			p.health.known.Store(false)
			p.h.d.cfg.Log.Error("downlink shard cannot be served: edge and workers must agree on the number of shards", "shard", p.shard, "shards", p.h.d.cfg.Shards, "error", err)
			wait = misfitRetry
		} else if try == 20 {
			p.h.d.cfg.Log.Warn("downlink markers are not answered", "shard", p.shard, "error", err)
		}
		if !pause(ctx, wait) {
			return mark{}, ctx.Err()
		}
		wait = min(2*wait, lastRetry)
	}
}

func (p *prober) markOnce(ctx context.Context, subj string) (mark, error) {
	one, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	answer, err := p.h.feed.Request(one, subj)
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

// read answers the jobs and the sweep of a round from the stream.
func (p *prober) read(ctx context.Context, r *round, m mark, jobs []job, swept []sweptUser) ([]job, error) {
	from := m.seq
	subjects := map[string]bool{}
	for i := range jobs {
		from = min(from, jobs[i].from)
		subjects[subject.Down(p.shard, jobs[i].user)] = true
	}
	for i := range swept {
		from = min(from, swept[i].pos)
		subjects[subject.Down(p.shard, swept[i].user)] = true
	}
	lasts, err := p.reader.lasts(ctx, m.name, subjects, subject.Mark(p.shard, p.h.d.cfg.Edge), from+1, m.seq)
	if err != nil {
		p.fail(r, jobs, resumedUnread, m.seq)
		return nil, nil
	}
	for i := range swept {
		swept[i].last = lasts[subject.Down(p.shard, swept[i].user)]
	}
	for done := 0; ; swept = nil {
		outs, n := p.fetch(ctx, m, jobs[done:], lasts)
		first, err := p.prove(ctx, m, from+1)
		if errors.Is(err, errMoved) {
			return jobs[done:], err
		}
		res := &results{to: m.seq, first: first, outcomes: outs}
		for i := range outs {
			outs[i].settle(first, err)
		}
		if res.swept = swept; err != nil {
			res.swept, res.unswept = nil, swept != nil
		}
		if r.ages && done == 0 {
			res.age = p.reader.age(ctx, m.name)
		}
		p.h.box.put(letter{kind: proven, round: r, res: res})
		if done += n; done == len(jobs) {
			return nil, nil
		}
	}
}

// fetch reads what each of the first n jobs missed, several at a time, until postBytes
// are together.
func (p *prober) fetch(ctx context.Context, m mark, jobs []job, lasts map[string]uint64) (outs []outcome, n int) {
	outs = make([]outcome, len(jobs))
	var missed []int
	for i := range jobs {
		outs[i] = outcome{job: jobs[i], why: resumedOK, last: lasts[subject.Down(p.shard, jobs[i].user)]}
		if jobs[i].kind != check && outs[i].last > jobs[i].from {
			missed = append(missed, i)
		}
	}
	var next, bytes atomic.Int64
	work := func(r *reader) {
		for bytes.Load() < postBytes {
			k := int(next.Add(1)) - 1
			if k >= len(missed) {
				return
			}
			p.fetchOne(ctx, r, m, &outs[missed[k]], &bytes)
		}
	}
	var all sync.WaitGroup
	for i := 1; i < min(readers, len(missed)); i++ {
		if r := p.spareReader(i); r != nil {
			all.Go(func() { work(r) })
		}
	}
	work(p.reader)
	all.Wait()
	if taken := int(next.Load()); taken < len(missed) {
		return outs[:missed[taken]], missed[taken]
	}
	return outs, len(jobs)
}

func (p *prober) fetchOne(ctx context.Context, r *reader, m mark, o *outcome, bytes *atomic.Int64) {
	msgs, err := r.behind(ctx, m.name, subject.Down(p.shard, o.job.user), o.job.from, o.last, m.seq)
	switch {
	case errors.Is(err, errTooMuch):
		o.why = resumedTooMuch
		return
	case err != nil:
		o.why = resumedUnread
		return
	}
	o.frames = make([]entry, len(msgs))
	for i, msg := range msgs {
		o.frames[i] = entry{raw: msg.Data, at: NewToken(m.down.Epoch, m.down.Shard, number(msg, hSequence)), target: targetOf(first(msg, envelope.Target)), unsent: !sendable(msg.Data)}
		bytes.Add(int64(len(msg.Data)))
	}
}

// spareReader returns the i-th of the readers besides the first, or nil.
func (p *prober) spareReader(i int) *reader {
	for len(p.spare) < i {
		r, err := newReader(p.h.reads, p.h.d.m)
		if err != nil {
			return nil
		}
		p.spare = append(p.spare, r)
	}
	return p.spare[i-1]
}

// prove returns from where on the stream is whole, as of now: after a new marker, a
// replica that knows it is asked for the first message from seq on. The limits evict
// from the front only, and no replica that was read before was ahead of that marker.
func (p *prober) prove(ctx context.Context, m mark, seq uint64) (first uint64, err error) {
	now, err := p.mark(ctx)
	if err != nil {
		return 0, err
	}
	if now.name != m.name || now.seq <= m.seq {
		return 0, errMoved
	}
	return p.reader.firstFrom(ctx, m.name, seq, now.seq)
}

// settle: what was read is complete if nothing behind the job's position was evicted, or
// the user's last frame is known to lie before it.
func (o *outcome) settle(first uint64, err error) {
	switch {
	case o.why != resumedOK || o.last != 0 && o.last <= o.job.from:
	case err != nil:
		o.why = resumedUnread
	case first > o.job.from+1:
		o.why = resumedEvicted
	}
}

// check answers a round of checks alone.
func (p *prober) check(ctx context.Context, r *round, jobs []job) ([]job, error) {
	from, upto := jobs[0].from, uint64(0)
	for i := range jobs {
		from, upto = min(from, jobs[i].from), max(upto, jobs[i].upto)
	}
	first, err := p.reader.firstFrom(ctx, r.name, from+1, upto)
	res := &results{first: first, outcomes: make([]outcome, len(jobs))}
	for i := range jobs {
		res.outcomes[i] = outcome{job: jobs[i], why: resumedOK}
		res.outcomes[i].settle(first, err)
	}
	p.h.box.put(letter{kind: proven, round: r, res: res})
	return nil, nil
}

// fail answers jobs that could not be read.
func (p *prober) fail(r *round, jobs []job, why resumeResult, to uint64) {
	res := &results{to: to, outcomes: make([]outcome, len(jobs)), unswept: r.swept != nil}
	for i := range jobs {
		res.outcomes[i] = outcome{job: jobs[i], why: why}
	}
	p.h.box.put(letter{kind: proven, round: r, res: res})
}

// pause waits for d and up to a quarter more; it reports false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d + rand.N(d/4+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
