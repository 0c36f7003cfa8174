package mongostore

import (
	"context"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	// maxBody is the most bytes of a body: a document holds 16 MiB.
	maxBody = 15 << 20
	// maxCID is the most bytes of a clientMsgId here; the protocol allows fewer.
	maxCID = 256
	// layered is up to how many messages of one conversation go out one a round, together
	// with those of the other conversations. More than that get ordered inserts of their own.
	layered = 4
	// parallel is how many requests one Append has at the store at a time.
	parallel = 8
	// trustedConflicts is after how many refused numbers in a row the last one is read.
	trustedConflicts = 2
)

// entry is one message on its way into the store.
type entry struct {
	msg    *messaging.NewMessage
	res    *messaging.Appended
	hash   hash
	before *entry // an earlier message of the same call with the same sender and clientMsgId
	seq    int64  // the number that is attempted
	dup    dupKey // which key refused the attempt
	twin   *twin  // the stored message with the same sender and clientMsgId, when it was found
}

// group is what is left to store of one conversation, in order.
type group struct {
	conv      string
	left      []*entry
	last      int64 // committed, as of this round
	conflicts int   // refused numbers in a row
	twinAt    int64 // number of the latest twin that was met in this conversation, 0 if none was
}

// appender is the part of the store that Append is made of. Its methods may be called
// concurrently.
type appender struct {
	back    backend
	cache   *cache
	flights *flights
	m       *metrics
	noted   func(conv string, ts int64) // told of each message that is stored or known
}

// backend is what an appender needs of the messages collection: what it knows of a store
// with or without index look-ups, or of a test's.
type backend interface {
	// insert inserts the entries' documents. An ordered insert stops at the first that
	// is refused. It returns the refused ones; after an error nothing is known of any.
	insert(ctx context.Context, entries []*entry, ordered bool) ([]refusal, error)
	// orderedMax is the most entries of one ordered insert.
	orderedMax() int
	// last reads the last number of a conversation that a majority has committed, 0 if
	// it has none. The caller knows that it is atLeast.
	last(ctx context.Context, conv string, atLeast int64) (int64, error)
	// twins looks for the stored twin of entries that a unique key refused, and sets it.
	// An entry without one was refused because its number is taken.
	twins(ctx context.Context, refused []*entry) error
	// recall looks for twins of messages that were not tried yet, because others of
	// their batch turned out to be known. It may overlook some.
	recall(ctx context.Context, groups []*group) error
}

// append stores the messages. See messaging.Store.
func (a *appender) append(ctx context.Context, msgs []messaging.NewMessage) ([]messaging.Appended, error) {
	res := make([]messaging.Appended, len(msgs))
	rounds := 0
	for _, pass := range admit(msgs, res) {
		groups := grouped(pass)
		known := false // a twin was seen in this pass: look ahead for more
		for len(groups) > 0 {
			rounds++
			mine, rest, release, err := a.flights.take(ctx, groups)
			if err != nil {
				return nil, err
			}
			known, err = a.round(ctx, mine, known)
			release()
			if err != nil {
				return nil, err
			}
			groups = rest
			for _, g := range mine {
				if len(g.left) > 0 {
					groups = append(groups, g)
				}
			}
		}
	}
	a.m.rounds.Observe(float64(rounds))
	return res, nil
}

// admit refuses what can never be stored and returns the rest in passes: a message whose
// sender and clientMsgId occurred before in this call waits for the next pass.
func admit(msgs []messaging.NewMessage, res []messaging.Appended) [][]*entry {
	type key struct{ from, cid string }
	seen := make(map[key]*entry, len(msgs))
	depth := make(map[*entry]int)
	all := make([]entry, len(msgs))
	var passes [][]*entry
	for i := range msgs {
		e := &all[i]
		e.msg, e.res = &msgs[i], &res[i]
		if reason := unfit(e.msg); reason != "" {
			*e.res = messaging.Appended{Outcome: messaging.Refused, Reason: reason}
			continue
		}
		e.hash = hashOf(e.msg.Body)
		k := key{e.msg.From.Token(), e.msg.CID}
		pass := 0
		if e.before = seen[k]; e.before != nil {
			pass = depth[e.before] + 1
			depth[e] = pass
		}
		seen[k] = e
		if pass == len(passes) {
			passes = append(passes, make([]*entry, 0, len(msgs)-i))
		}
		passes[pass] = append(passes[pass], e)
	}
	return passes
}

// unfit returns why a message can never be stored, "" if it can.
func unfit(m *messaging.NewMessage) string {
	switch {
	case !validConv(m.Conv) || !utf8.ValidString(m.Conv):
		return "the conversation id is not 1 to 1024 bytes of UTF-8 without '/' and NUL"
	case m.CID == "" || len(m.CID) > maxCID || !validCID(m.CID):
		return "the clientMsgId is not 1 to 256 bytes of UTF-8 without NUL"
	case m.From.IsZero():
		return "the message has no sender"
	case len(m.Body) > maxBody:
		return "the message is larger than a document of the store"
	}
	return ""
}

func validCID(cid string) bool {
	for i := range len(cid) {
		if cid[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(cid)
}

// grouped sorts a pass by conversation, each in order. Messages that an earlier one of
// the call answers for are settled at once.
func grouped(pass []*entry) []*group {
	groups := make([]*group, 0, len(pass))
	byConv := make(map[string]*group, len(pass))
	for _, e := range pass {
		if e.before != nil && e.repeats() {
			continue
		}
		g := byConv[e.msg.Conv]
		if g == nil {
			g = &group{conv: e.msg.Conv}
			byConv[e.msg.Conv] = g
			groups = append(groups, g)
		}
		g.left = append(g.left, e)
	}
	return groups
}

// repeats settles an entry by the earlier one with its sender and clientMsgId, if that
// is enough to know.
func (e *entry) repeats() bool {
	b := e.before
	switch b.res.Outcome {
	case messaging.Stored, messaging.Known:
		t := twin{conv: b.msg.Conv, seq: b.res.Seq, kind: b.msg.Type, hash: b.hash[:], ts: b.res.TS}
		*e.res = t.answer(e)
		return true
	default:
		if b.msg.Conv == e.msg.Conv && b.msg.Type == e.msg.Type && b.hash == e.hash {
			*e.res = *b.res
			return true
		}
		return false
	}
}

// round makes one attempt for each group, which this Append holds. It reports whether it
// met a message that was stored before. After an error nothing is known of the groups.
func (a *appender) round(ctx context.Context, groups []*group, lookAhead bool) (known bool, err error) {
	defer func() {
		if err != nil {
			for _, g := range groups {
				a.cache.drop(g.conv)
			}
		}
	}()
	if lookAhead {
		if known, err = a.recall(ctx, groups); err != nil {
			return false, err
		}
	}
	if err := a.readLasts(ctx, groups); err != nil {
		return false, err
	}
	refused, err := a.insertAll(ctx, groups)
	if err != nil {
		return false, err
	}
	met, err := a.settleRefused(ctx, refused)
	return known || met, err
}

// recall settles those of the groups' messages that are stored already.
func (a *appender) recall(ctx context.Context, groups []*group) (bool, error) {
	start := time.Now()
	err := a.back.recall(ctx, groups)
	a.m.done(opTwins, start, err)
	if err != nil {
		return false, err
	}
	found := false
	for _, g := range groups {
		left := g.left[:0]
		for _, e := range g.left {
			if e.twin == nil {
				left = append(left, e)
				continue
			}
			a.settleTwin(e)
			found = true
		}
		g.left = left
	}
	return found, nil
}

// readLasts sets the groups' last numbers, from the cache or by majority reads.
func (a *appender) readLasts(ctx context.Context, groups []*group) error {
	var eg errgroup.Group
	eg.SetLimit(parallel)
	for _, g := range groups {
		if len(g.left) == 0 {
			continue
		}
		seq, ok := a.cache.last(g.conv)
		if g.last = seq; ok && g.conflicts < trustedConflicts {
			continue
		}
		eg.Go(func() error {
			start := time.Now()
			last, err := a.back.last(ctx, g.conv, max(g.last, 0))
			a.m.done(opLast, start, err)
			if err != nil {
				return err
			}
			g.last = last
			a.cache.raise(g.conv, last)
			return nil
		})
	}
	return eg.Wait()
}

// insertAll tries the groups' next messages and returns those that a unique key refused,
// with their groups.
func (a *appender) insertAll(ctx context.Context, groups []*group) ([]refusedEntry, error) {
	var single []*group
	var long [][]*group // of one each
	for _, g := range groups {
		switch n := len(g.left); {
		case n == 0:
		case n <= layered:
			single = append(single, g)
		default:
			long = append(long, []*group{g})
		}
	}
	if len(long) == 0 && len(single) == 0 {
		return nil, nil
	}
	if len(long) == 0 {
		return a.insertOne(ctx, single, false)
	}
	out := make([][]refusedEntry, len(long)+1)
	var eg errgroup.Group // one failure does not cut the others off: their answers are on the way
	eg.SetLimit(parallel)
	for i, one := range long {
		eg.Go(func() (err error) {
			out[i], err = a.insertOne(ctx, one, true)
			return err
		})
	}
	if len(single) > 0 {
		eg.Go(func() (err error) {
			out[len(long)], err = a.insertOne(ctx, single, false)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	var refused []refusedEntry
	for _, r := range out {
		refused = append(refused, r...)
	}
	return refused, nil
}

// refusedEntry is an entry that a unique key refused, the first of its group.
type refusedEntry struct {
	*entry
	group *group
}

// insertOne makes one insert: ordered, of the messages of a single group, or unordered,
// of the next message of each group. It settles what is stored and what can never be,
// and removes it from the groups.
func (a *appender) insertOne(ctx context.Context, groups []*group, ordered bool) ([]refusedEntry, error) {
	var batch []*entry
	if ordered {
		batch = groups[0].left
		batch = batch[:min(len(batch), a.back.orderedMax())]
		for i, e := range batch {
			e.seq = groups[0].last + 1 + int64(i)
		}
	} else {
		batch = make([]*entry, len(groups))
		for i, g := range groups {
			batch[i] = g.left[0]
			batch[i].seq = g.last + 1
		}
	}
	start := time.Now()
	failed, err := a.back.insert(ctx, batch, ordered)
	a.m.done(opInsert, start, err)
	if err != nil {
		return nil, err
	}
	if ordered {
		return a.settleOrdered(groups[0], batch, failed), nil
	}
	return a.settleUnordered(groups, batch, failed), nil
}

// settleOrdered settles an ordered insert: what stands before the failure is stored,
// what stands behind it was not tried.
func (a *appender) settleOrdered(g *group, batch []*entry, failed []refusal) []refusedEntry {
	n := len(batch)
	if len(failed) > 0 {
		n = failed[0].index
	}
	for _, e := range batch[:n] {
		a.settleStored(g, e)
	}
	g.left = g.left[n:]
	if len(failed) == 0 {
		return nil
	}
	return a.settleFailure(g, failed[0], nil)
}

func (a *appender) settleUnordered(groups []*group, batch []*entry, failed []refusal) []refusedEntry {
	var out []refusedEntry
	byIndex := make(map[int]refusal, len(failed))
	for _, f := range failed {
		byIndex[f.index] = f
	}
	for i, g := range groups {
		if f, bad := byIndex[i]; bad {
			out = a.settleFailure(g, f, out)
			continue
		}
		a.settleStored(g, batch[i])
		g.left = g.left[1:]
	}
	return out
}

// settleFailure settles the first entry of a group if it can never be stored, and adds
// it to out if a unique key refused it.
func (a *appender) settleFailure(g *group, f refusal, out []refusedEntry) []refusedEntry {
	e := g.left[0]
	if f.dup == notDup {
		*e.res = messaging.Appended{Outcome: messaging.Refused, Reason: f.reason}
		g.left = g.left[1:]
		return out
	}
	e.dup = f.dup
	return append(out, refusedEntry{e, g})
}

func (a *appender) settleStored(g *group, e *entry) {
	*e.res = messaging.Appended{Outcome: messaging.Stored, Seq: e.seq, TS: e.msg.TS}
	g.conflicts = 0
	a.cache.raise(g.conv, e.seq)
	a.noted(g.conv, e.msg.TS)
}

func (a *appender) settleTwin(e *entry) {
	*e.res = e.twin.answer(e)
	a.m.twins.Inc()
	if e.res.Outcome == messaging.Known {
		a.cache.raise(e.msg.Conv, e.res.Seq)
		a.noted(e.msg.Conv, e.res.TS)
	}
}

// settleRefused finds out why unique keys refused entries: a twin answers for its entry,
// a taken number is counted, and the entry stays the first of its group. It reports
// whether there was a twin.
func (a *appender) settleRefused(ctx context.Context, refused []refusedEntry) (bool, error) {
	if len(refused) == 0 {
		return false, nil
	}
	entries := make([]*entry, len(refused))
	for i, r := range refused {
		entries[i] = r.entry
	}
	start := time.Now()
	err := a.back.twins(ctx, entries)
	a.m.done(opTwins, start, err)
	if err != nil {
		return false, err
	}
	found := false
	for _, r := range refused {
		if r.twin != nil {
			a.settleTwin(r.entry)
			r.group.left = r.group.left[1:]
			r.group.conflicts = 0
			if r.res.Outcome == messaging.Known {
				r.group.twinAt = r.res.Seq
			}
			found = true
			continue
		}
		a.m.conflicts.Inc()
		a.cache.raise(r.group.conv, r.seq) // a duplicate _id that a majority has committed
		r.group.conflicts++
	}
	return found, nil
}
