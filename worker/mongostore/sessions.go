package mongostore

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/wirepost/wirepost/worker/messaging"
)

// ApplySessions implements messaging.Store. A session is only inserted and deleted, so
// events that come again change nothing; a batch comes to the last event of each
// connection.
func (s *Store) ApplySessions(ctx context.Context, events []messaging.SessionEvent) (err error) {
	if len(events) == 0 {
		return nil
	}
	defer func(start time.Time) { s.m.done(opSessions, start, err) }(time.Now())
	opened, closed := net(events)
	if len(closed) > 0 {
		if _, err := s.sessions.BulkWrite(ctx, closed, options.BulkWrite().SetOrdered(false)); err != nil {
			return fmt.Errorf("delete sessions: %w", err)
		}
	}
	_, err = insertNew(ctx, s.sessions, opened)
	return err
}

// net is what a batch of events comes to: documents of sessions that are open at its
// end, and the deletion of those that are not.
func net(events []messaging.SessionEvent) (opened []any, closed []mongo.WriteModel) {
	last := make(map[string]int, len(events))
	for i := range events {
		last[events[i].Conn] = i
	}
	for i := range events {
		ev := &events[i]
		switch {
		case last[ev.Conn] != i:
		case ev.Closed:
			closed = append(closed, mongo.NewDeleteOneModel().SetFilter(bson.D{{Key: fieldID, Value: ev.Conn}}))
		default:
			opened = append(opened, bson.D{{Key: fieldID, Value: ev.Conn}, {Key: fieldUser, Value: ev.User.Token()},
				{Key: fieldEdge, Value: ev.Edge}, {Key: fieldDevice, Value: ev.DeviceID}, {Key: fieldAddr, Value: ev.Addr},
				{Key: fieldSince, Value: ev.At.UnixMilli()}})
		}
	}
	return opened, closed
}

// EdgesWithSessions returns the names of all edges that have a session.
func (s *Store) EdgesWithSessions(ctx context.Context) (edges []string, err error) {
	defer func(start time.Time) { s.m.done(opSessions, start, err) }(time.Now())
	// The driver makes a deadline into maxTimeMS, which FerretDB refuses for distinct.
	ctx, cancel := withoutDeadline(ctx)
	defer cancel()
	found := s.sessions.Distinct(ctx, fieldEdge, bson.D{})
	if err := found.Err(); err != nil { // Decode would hide it behind an error of its own
		return nil, fmt.Errorf("read edges of sessions: %w", err)
	}
	if err := found.Decode(&edges); err != nil {
		return nil, fmt.Errorf("read edges of sessions: %w", err)
	}
	return edges, nil
}

// withoutDeadline returns a context that ends when ctx does, and does not tell when.
func withoutDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return out, func() { stop(); cancel(context.Canceled) }
}

// DropEdge removes all sessions of an edge and returns how many there were.
func (s *Store) DropEdge(ctx context.Context, edge string) (n int, err error) {
	defer func(start time.Time) { s.m.done(opSessions, start, err) }(time.Now())
	res, err := s.sessions.DeleteMany(ctx, bson.D{{Key: fieldEdge, Value: edge}})
	if err != nil {
		return 0, fmt.Errorf("delete sessions of an edge: %w", err)
	}
	return int(res.DeletedCount), nil
}
