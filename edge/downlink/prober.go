package downlink

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
)

const (
	readers   = 16       // direct gets of a shard under way at once
	postBytes = 16 << 20 // of read frames, at which results are proven and handed over
)

var (
	errMoved   = errors.New("another incarnation of the stream began during the round")
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
	last   uint64  // the user's last frame, maybe behind the marker; 0: none behind the round's first position
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
