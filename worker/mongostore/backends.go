package mongostore

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/shared/userid"
)

// This file holds everything in which the stores differ; which half is used is chosen
// once, in Open. MongoDB finds ranges and (from, cid) by index. FerretDB 1.24 sends only
// {_id: "<string>"} to SQLite and reads the whole collection for anything else, so
// everything there is done by point reads of _id, which works because the numbers of a
// conversation have no gap.

// reader is what the store reads with, beside what Append needs.
type reader interface {
	backend
	// scan yields a conversation's messages with lo ≤ seq ≤ hi in ascending order, or in
	// descending order, until yield returns false; want is how many are likely wanted.
	scan(ctx context.Context, conv string, lo, hi int64, descending bool, want int, yield func(*messageDoc) bool) error
	// conversationIDs returns a user's conversations in byte order.
	conversationIDs(ctx context.Context, user userid.ID) ([]string, error)
	// recency returns a time for each conversation, in Unix milliseconds, by which lists
	// are ordered.
	recency(ctx context.Context, convs []string) (map[string]int64, error)
}

// errTwinGone is returned when a unique key refused a message and the message that holds
// the key cannot be read.
var errTwinGone = errors.New("a message was refused as known, and the known one is not found")

// find returns the message with this _id, nil if there is none.
func find(ctx context.Context, coll *mongo.Collection, id string) (*messageDoc, error) {
	var doc messageDoc
	err := coll.FindOne(ctx, bson.D{{Key: fieldID, Value: id}}).Decode(&doc)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return &doc, nil
}

// ---- MongoDB ----

// indexed reads with ranges and indexes.
type indexed struct {
	messages, conversations, members *mongo.Collection
}

func (b *indexed) orderedMax() int { return 1000 }

func (b *indexed) insert(ctx context.Context, entries []*entry, ordered bool) ([]refusal, error) {
	return insertEntries(ctx, b.messages, entries, ordered)
}

// idRange matches the messages of a conversation with lo ≤ seq ≤ hi.
func idRange(conv string, lo, hi int64) bson.D {
	return bson.D{{Key: fieldID, Value: bson.D{
		{Key: "$gte", Value: messageID(conv, lo)}, {Key: "$lte", Value: messageID(conv, hi)}}}}
}

func (b *indexed) last(ctx context.Context, conv string, _ int64) (int64, error) {
	var doc struct {
		ID string `bson:"_id"`
	}
	err := b.messages.FindOne(ctx, idRange(conv, 0, maxSeq), options.FindOne().
		SetSort(bson.D{{Key: fieldID, Value: -1}}).SetProjection(bson.D{{Key: fieldID, Value: 1}})).Decode(&doc)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read last message: %w", err)
	}
	_, seq, _ := parseMessageID(doc.ID) // its form was matched by the range
	return seq, nil
}

// twins looks up those entries that were refused by (from, cid). One that was refused by
// _id may have a twin too: the attempt at the next number tells.
func (b *indexed) twins(ctx context.Context, refused []*entry) error {
	var ask []*entry
	for _, e := range refused {
		if e.dup != dupID {
			ask = append(ask, e)
		}
	}
	if err := b.lookUp(ctx, ask); err != nil {
		return err
	}
	for _, e := range ask {
		if e.dup == dupTwin && e.twin == nil {
			return errTwinGone
		}
	}
	return nil
}

func (b *indexed) recall(ctx context.Context, groups []*group) error {
	var ask []*entry
	for _, g := range groups {
		ask = append(ask, g.left...)
	}
	return b.lookUp(ctx, ask)
}

// lookUp sets the twins of entries, by (from, cid).
func (b *indexed) lookUp(ctx context.Context, ask []*entry) error {
	if len(ask) == 0 {
		return nil
	}
	type key struct{ from, cid string }
	byKey := make(map[key]*entry, len(ask))
	or := make(bson.A, len(ask))
	for i, e := range ask {
		k := key{e.msg.From.Token(), e.msg.CID}
		byKey[k] = e
		or[i] = bson.D{{Key: fieldFrom, Value: k.from}, {Key: fieldCID, Value: k.cid}}
	}
	cur, err := b.messages.Find(ctx, bson.D{{Key: "$or", Value: or}}, options.Find().
		SetProjection(bson.D{{Key: fieldBody, Value: 0}}).SetBatchSize(int32(len(ask)+1)))
	if err != nil {
		return fmt.Errorf("look up known messages: %w", err)
	}
	defer cur.Close(ctx)
	for cur.Next(ctx) {
		var doc messageDoc
		if err := cur.Decode(&doc); err != nil {
			return fmt.Errorf("look up known messages: %w", err)
		}
		if e := byKey[key{doc.From, doc.CID}]; e != nil {
			if e.twin, err = doc.twin(); err != nil {
				return err
			}
		}
	}
	if err := cur.Err(); err != nil {
		return fmt.Errorf("look up known messages: %w", err)
	}
	return nil
}

// maxBatch is how many messages one answer of the server holds at most: a page is cut
// by bytes, and what is read beyond is thrown away.
const maxBatch = 64

func (b *indexed) scan(ctx context.Context, conv string, lo, hi int64, descending bool, want int, yield func(*messageDoc) bool) error {
	direction := 1
	if descending {
		direction = -1
	}
	cur, err := b.messages.Find(ctx, idRange(conv, lo, hi), options.Find().SetSort(bson.D{{Key: fieldID, Value: direction}}).
		SetLimit(int64(want)).SetBatchSize(int32(min(want, maxBatch))))
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	defer cur.Close(ctx)
	for cur.Next(ctx) {
		var doc messageDoc
		if err := cur.Decode(&doc); err != nil {
			return fmt.Errorf("read history: %w", err)
		}
		if !yield(&doc) {
			return nil
		}
	}
	if err := cur.Err(); err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	return nil
}

// conversationIDs is a range of _id, which begins with the user.
func (b *indexed) conversationIDs(ctx context.Context, user userid.ID) ([]string, error) {
	afterSlash := user.Token() + string(rune('/'+1))
	filter := bson.D{{Key: fieldID, Value: bson.D{{Key: "$gt", Value: memberID(user.Token(), "")}, {Key: "$lt", Value: afterSlash}}}}
	return memberConvs(ctx, b.members, filter, options.Find().SetSort(bson.D{{Key: fieldID, Value: 1}}))
}

// recency reads the hints, which may be some seconds old.
func (b *indexed) recency(ctx context.Context, convs []string) (map[string]int64, error) {
	const chunk = 1000 // conversations in one question
	times := make(map[string]int64, len(convs))
	for len(convs) > 0 {
		n := min(chunk, len(convs))
		cur, err := b.conversations.Find(ctx, bson.D{{Key: fieldID, Value: bson.D{{Key: "$in", Value: convs[:n]}}}},
			options.Find().SetProjection(bson.D{{Key: fieldTS, Value: 1}}).SetBatchSize(chunk))
		if err != nil {
			return nil, fmt.Errorf("read conversations: %w", err)
		}
		var docs []struct {
			ID string `bson:"_id"`
			TS int64  `bson:"ts"`
		}
		if err := cur.All(ctx, &docs); err != nil {
			return nil, fmt.Errorf("read conversations: %w", err)
		}
		for _, d := range docs {
			times[d.ID] = d.TS
		}
		convs = convs[n:]
	}
	return times, nil
}

// ---- FerretDB ----

// points reads one _id at a time.
type points struct {
	messages, members *mongo.Collection
	cache             *cache // lower bounds of last numbers, from which to search on
}

const (
	// walkBack is how far a twin is searched by _id before the whole collection is read.
	// Duplicates are retries, so they are near the end.
	walkBack = 128
	// pointWindow is how many point reads are on the way at a time.
	pointWindow = 16
)

// orderedMax is FerretDB's own batch: in an ordered insert of more, a failure in one
// batch does not keep the next batch from being inserted.
func (b *points) orderedMax() int { return 100 }

func (b *points) insert(ctx context.Context, entries []*entry, ordered bool) ([]refusal, error) {
	return insertEntries(ctx, b.messages, entries, ordered)
}

// last finds the end of the numbers, which have no gap: in doubling steps from a number
// that is known, then by halving.
func (b *points) last(ctx context.Context, conv string, atLeast int64) (int64, error) {
	there, step := atLeast, int64(1) // the message there exists, or is number 0
	missing := int64(maxSeq) + 1
	for there+1 < missing {
		probe := min(there+step, missing-1)
		if missing <= maxSeq {
			probe = there + (missing-there)/2
		}
		doc, err := find(ctx, b.messages, messageID(conv, probe))
		switch {
		case err != nil:
			return 0, err
		case doc == nil:
			missing = probe
		default:
			there, step = probe, 2*step
		}
	}
	return there, nil
}

func (b *points) twins(ctx context.Context, refused []*entry) error {
	var eg errgroup.Group
	eg.SetLimit(pointWindow)
	for _, e := range refused {
		eg.Go(func() error { return b.twinOf(ctx, e) })
	}
	return eg.Wait()
}

// twinOf finds out why an entry was refused, which FerretDB does not say. A document
// under the attempted _id, and not the twin, is reason enough: the attempt at the next
// number tells whether there is a twin too. Without one there must be a twin.
func (b *points) twinOf(ctx context.Context, e *entry) error {
	doc, err := find(ctx, b.messages, messageID(e.msg.Conv, e.seq))
	if err != nil {
		return err
	}
	if doc != nil {
		if doc.isTwin(e) {
			e.twin, err = doc.twin()
		}
		return err
	}
	err = b.scan(ctx, e.msg.Conv, max(1, e.seq-walkBack), e.seq-1, true, walkBack, func(d *messageDoc) bool {
		doc = d
		return !d.isTwin(e)
	})
	if err != nil {
		return err
	}
	if doc == nil || !doc.isTwin(e) {
		if doc, err = b.search(ctx, e); err != nil {
			return err
		}
	}
	e.twin, err = doc.twin()
	return err
}

// search reads the whole collection for an entry's twin, which must be there.
func (b *points) search(ctx context.Context, e *entry) (*messageDoc, error) {
	var doc messageDoc
	err := b.messages.FindOne(ctx, bson.D{{Key: fieldFrom, Value: e.msg.From.Token()}, {Key: fieldCID, Value: e.msg.CID}}).Decode(&doc)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, errTwinGone
	}
	if err != nil {
		return nil, fmt.Errorf("look up a known message: %w", err)
	}
	return &doc, nil
}

// recall follows each conversation from where its latest twin was: when a batch is
// repeated, the twins of its messages stand one behind the other.
func (b *points) recall(ctx context.Context, groups []*group) error {
	var eg errgroup.Group
	eg.SetLimit(pointWindow)
	for _, g := range groups {
		if g.twinAt == 0 {
			continue
		}
		eg.Go(func() error {
			for _, e := range g.left {
				doc, err := find(ctx, b.messages, messageID(g.conv, g.twinAt+1))
				if err != nil {
					return err
				}
				if doc == nil || !doc.isTwin(e) {
					return nil
				}
				if e.twin, err = doc.twin(); err != nil {
					return err
				}
				g.twinAt++
			}
			return nil
		})
	}
	return eg.Wait()
}

func (b *points) scan(ctx context.Context, conv string, lo, hi int64, descending bool, want int, yield func(*messageDoc) bool) error {
	if descending {
		known, _ := b.cache.last(conv)
		last, err := b.last(ctx, conv, max(0, known))
		if err != nil {
			return err
		}
		b.cache.raise(conv, last)
		hi = min(hi, last)
	}
	for lo <= hi && want > 0 {
		n := int(min(hi-lo+1, int64(min(want, pointWindow))))
		first := lo
		if descending {
			first = hi - int64(n) + 1
		}
		docs, err := b.window(ctx, conv, first, n)
		if err != nil {
			return err
		}
		for i := range docs {
			d := docs[i]
			if descending {
				d = docs[n-1-i]
			}
			if d == nil || !yield(d) {
				return nil
			}
		}
		want -= n
		if descending {
			hi -= int64(n)
		} else {
			lo += int64(n)
		}
	}
	return nil
}

// window reads n messages from first on, side by side; nil stands for one that is missing.
func (b *points) window(ctx context.Context, conv string, first int64, n int) ([]*messageDoc, error) {
	docs := make([]*messageDoc, n)
	var eg errgroup.Group
	eg.SetLimit(parallel)
	for i := range docs {
		eg.Go(func() (err error) {
			docs[i], err = find(ctx, b.messages, messageID(conv, first+int64(i)))
			return err
		})
	}
	return docs, eg.Wait()
}

// conversationIDs reads all members: a member is two short strings, 1,000 of them take
// some 20 ms, and the embedded store is not for more users than that bears.
func (b *points) conversationIDs(ctx context.Context, user userid.ID) ([]string, error) {
	return memberConvs(ctx, b.members, bson.D{{Key: fieldUser, Value: user.Token()}}, options.Find())
}

// recency reads the last message of each conversation.
func (b *points) recency(ctx context.Context, convs []string) (map[string]int64, error) {
	times := make([]int64, len(convs))
	var eg errgroup.Group
	eg.SetLimit(parallel)
	for i, conv := range convs {
		eg.Go(func() error {
			return b.scan(ctx, conv, 1, maxSeq, true, 1, func(d *messageDoc) bool {
				times[i] = d.TS
				return false
			})
		})
	}
	err := eg.Wait()
	out := make(map[string]int64, len(convs))
	for i, conv := range convs {
		out[conv] = times[i]
	}
	return out, err
}
