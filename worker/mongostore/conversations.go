package mongostore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

// ensure makes sure that the conversations of messages exist, with their members, before
// any of their messages does. Both are only ever inserted, so it may be repeated.
func (s *Store) ensure(ctx context.Context, msgs []messaging.NewMessage) (err error) {
	var fresh []*messaging.NewMessage
	var seen map[string]bool
	for i := range msgs {
		m := &msgs[i]
		if seen[m.Conv] || unfit(m) != "" || s.cache.known(m.Conv) {
			continue
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[m.Conv] = true
		fresh = append(fresh, m)
	}
	if len(fresh) == 0 {
		return nil
	}
	defer func(start time.Time) { s.m.done(opEnsure, start, err) }(time.Now())
	convs, members := conversationDocs(fresh)
	var existing []int
	var eg errgroup.Group
	eg.Go(func() (err error) {
		existing, err = insertNew(ctx, s.conversations, convs)
		return err
	})
	eg.Go(func() error {
		_, err := insertNew(ctx, s.members, members)
		return err
	})
	if err := eg.Wait(); err != nil {
		return err
	}
	for _, m := range fresh {
		s.cache.setKnown(m.Conv)
	}
	s.beginAtZero(fresh, existing)
	return nil
}

// beginAtZero saves the reading of the last number of conversations that were made just
// now: it is 0, or somebody was very fast and the first insert is refused.
func (s *Store) beginAtZero(fresh []*messaging.NewMessage, existing []int) {
	for i, m := range fresh {
		if !slices.Contains(existing, i) {
			s.cache.raise(m.Conv, 0)
		}
	}
}

func conversationDocs(fresh []*messaging.NewMessage) (convs, members []any) {
	for _, m := range fresh {
		users := make(bson.A, len(m.Members))
		for i, u := range m.Members {
			users[i] = u.Token()
			members = append(members, bson.D{{Key: fieldID, Value: memberID(u.Token(), m.Conv)},
				{Key: fieldConv, Value: m.Conv}, {Key: fieldUser, Value: u.Token()}})
		}
		convs = append(convs, bson.D{{Key: fieldID, Value: m.Conv}, {Key: fieldMembers, Value: users}, {Key: fieldTS, Value: m.TS}})
	}
	return convs, members
}

// memberConvs returns the conversations of the members that a filter finds, in byte order.
func memberConvs(ctx context.Context, members *mongo.Collection, filter bson.D, opts *options.FindOptionsBuilder) ([]string, error) {
	cur, err := members.Find(ctx, filter, opts.SetProjection(bson.D{{Key: fieldConv, Value: 1}}).SetBatchSize(1000))
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	var docs []struct {
		Conv string `bson:"conv"`
	}
	if err := cur.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	convs := make([]string, len(docs))
	for i, d := range docs {
		convs[i] = d.Conv
	}
	slices.Sort(convs)
	return convs, nil
}

// ConversationIDs implements messaging.Store: in byte order.
func (s *Store) ConversationIDs(ctx context.Context, user userid.ID) (ids []string, err error) {
	defer func(start time.Time) { s.m.done(opMembers, start, err) }(time.Now())
	return s.reader.conversationIDs(ctx, user)
}

// dated is a conversation's place in a list: latest first, and by id among equals.
type dated struct {
	conv string
	ts   int64 // Unix milliseconds
}

func (d dated) compare(o dated) int {
	return cmp.Or(cmp.Compare(o.ts, d.ts), cmp.Compare(d.conv, o.conv))
}

// cursor names the place behind which the next page begins.
func (d dated) cursor() string { return strconv.FormatInt(d.ts, 36) + "/" + d.conv }

func parseCursor(s string) (dated, bool) {
	ts, conv, found := strings.Cut(s, "/")
	n, err := strconv.ParseInt(ts, 36, 64)
	return dated{conv, n}, found && err == nil
}

// Conversations implements messaging.Store. The order of pages is by hints that may be
// some seconds old; within a page it is exact. A conversation without a message is not
// in the list, so a page may be shorter than limit. A cursor of another making gets an
// empty last page.
func (s *Store) Conversations(ctx context.Context, user userid.ID, limit int, cursor string) (convs []messaging.Conversation, next string, err error) {
	defer func(start time.Time) { s.m.done(opConversations, start, err) }(time.Now())
	after, ok := parseCursor(cursor)
	if cursor != "" && !ok {
		return nil, "", nil
	}
	ids, err := s.reader.conversationIDs(ctx, user)
	if err != nil {
		return nil, "", err
	}
	times, err := s.reader.recency(ctx, ids)
	if err != nil {
		return nil, "", err
	}
	if s.hints != nil {
		s.hints.overlay(times)
	}
	list := make([]dated, 0, len(ids))
	for _, id := range ids {
		if d := (dated{id, times[id]}); cursor == "" || after.compare(d) < 0 {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, dated.compare)
	if limit = max(1, limit); len(list) > limit {
		list = list[:limit]
		next = list[limit-1].cursor()
	}
	convs, err = s.withLast(ctx, list)
	if err != nil {
		return nil, "", err
	}
	return convs, next, nil
}

// withLast reads the last message of each conversation, and puts the latest first.
func (s *Store) withLast(ctx context.Context, list []dated) ([]messaging.Conversation, error) {
	pages := make([]page, len(list))
	var eg errgroup.Group
	eg.SetLimit(parallel)
	for i, d := range list {
		p := &pages[i]
		p.limit = 1
		eg.Go(func() error { return s.reader.scan(ctx, d.conv, 1, maxSeq, true, 1, p.add) })
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	convs := make([]messaging.Conversation, 0, len(list))
	for i := range pages {
		if pages[i].err != nil {
			return nil, pages[i].err
		}
		if len(pages[i].msgs) > 0 {
			convs = append(convs, messaging.Conversation{Conv: list[i].conv, Last: pages[i].msgs[0]})
		}
	}
	slices.SortStableFunc(convs, func(a, b messaging.Conversation) int {
		return dated{a.Conv, a.Last.TS}.compare(dated{b.Conv, b.Last.TS})
	})
	return convs, nil
}
