package mongostore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	// DefaultDatabase is used when neither the options nor the address name one.
	DefaultDatabase = "wirepost"
	// openRetry is how long Open waits after a failed attempt, openTimeout how long one takes.
	openRetry   = 3 * time.Second
	openTimeout = 10 * time.Second
	// selectionTimeout is how long an operation waits for a server that takes writes, if
	// its context allows it.
	selectionTimeout = 5 * time.Second
)

// Options says which store to open.
type Options struct {
	URI      string // mongodb://… of a replica set, or of FerretDB
	Database string // "" = the one in URI, else DefaultDatabase
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Store implements messaging.Store, and what the janitor needs. Its methods may be
// called concurrently, but for Close. Several stores, in one or many processes, may work
// on the same database.
type Store struct {
	client *mongo.Client
	kind   Kind
	m      *metrics

	conversations, members, sessions *mongo.Collection

	reader   reader
	cache    *cache
	appender *appender // its inserts join those of concurrent Appends
	alone    *appender // the same, but its inserts do not
	hints    *hints    // nil on FerretDB, which reads the last messages themselves
}

// ValidURI reports whether uri is one that Open can use. It connects to nothing; what is
// wrong is not said, because it may hold the password.
func ValidURI(uri string) bool { return options.Client().ApplyURI(uri).Validate() == nil }

// Open connects to the store, finds out what it is, and creates the collections and
// indexes that are missing. While the store is away it tries again every 3 s, with a log
// line each, until ctx ends. A malformed address is an error at once.
func Open(ctx context.Context, o Options) (*Store, error) {
	name, err := databaseName(o)
	if err != nil {
		return nil, err
	}
	client, err := mongo.Connect(options.Client().ApplyURI(o.URI).
		SetAppName("wirepost-worker").
		SetServerSelectionTimeout(selectionTimeout).
		SetReadPreference(readpref.Primary()).
		SetReadConcern(readconcern.Majority()).
		SetWriteConcern(durable()))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db := client.Database(name)
	for {
		d, err := prepare(ctx, db)
		if err == nil {
			return newStore(client, db, d, o), nil
		}
		if ctx.Err() == nil {
			o.Log.Warn("the store is not ready, trying again", "in", openRetry, "err", err)
		}
		select {
		case <-time.After(openRetry):
		case <-ctx.Done():
			_ = client.Disconnect(context.WithoutCancel(ctx)) // nothing was written through it
			return nil, fmt.Errorf("open store: %w", context.Cause(ctx))
		}
	}
}

// durable is the write concern of everything that anybody waits for.
func durable() *writeconcern.WriteConcern {
	journaled := true
	return &writeconcern.WriteConcern{W: "majority", Journal: &journaled}
}

func databaseName(o Options) (string, error) {
	cs, err := connstring.ParseAndValidate(o.URI)
	switch {
	case err != nil:
		return "", fmt.Errorf("open store: address: %w", err)
	case o.Database != "":
		return o.Database, nil
	case cs.Database != "":
		return cs.Database, nil
	}
	return DefaultDatabase, nil
}

func prepare(ctx context.Context, db *mongo.Database) (detected, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	d, err := detect(ctx, db)
	if err != nil {
		return d, err
	}
	return d, ensureSchema(ctx, db, d)
}

func newStore(client *mongo.Client, db *mongo.Database, d detected, o Options) *Store {
	o.Log.Info("store opened", "kind", string(d.kind), "version", d.version, "clustered", d.clustered, "database", db.Name())
	if d.standalone {
		o.Log.Warn("the store is a single server without a replica set: nothing takes over when it fails")
	}
	s := &Store{client: client, kind: d.kind, m: newMetrics(o.Registry), cache: newCache(cacheGeneration),
		conversations: db.Collection(collConversations), members: db.Collection(collMembers), sessions: db.Collection(collSessions)}
	messages := db.Collection(collMessages)
	noted := func(string, int64) {}
	if d.kind == FerretDB {
		s.reader = &points{messages: messages, members: s.members, cache: s.cache}
	} else {
		s.reader = &indexed{messages: messages, conversations: s.conversations, members: s.members}
		s.hints = newHints(db.Collection(collConversations, options.Collection().SetWriteConcern(writeconcern.W1())), o.Log, s.m)
		noted = s.hints.note
	}
	s.alone = &appender{back: s.reader, cache: s.cache, flights: newFlights(), m: s.m, noted: noted}
	s.appender = s.alone.joining()
	return s
}

// Kind tells which store this is.
func (s *Store) Kind() Kind { return s.kind }

// Ping returns nil when the store takes writes.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Ping(ctx, readpref.Primary()); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Append implements messaging.Store.
func (s *Store) Append(ctx context.Context, msgs []messaging.NewMessage) (res []messaging.Appended, err error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	defer func(start time.Time) { s.m.done(opAppend, start, err) }(time.Now())
	return companyFirst(ctx, s.appender, s.alone, func(a *appender) ([]messaging.Appended, error) {
		if err := s.ensure(ctx, msgs); err != nil {
			return nil, err
		}
		return a.append(ctx, msgs)
	})
}

// Close writes the hints that wait and disconnects. No other method may be running.
func (s *Store) Close(ctx context.Context) error {
	if s.hints != nil {
		s.hints.close()
	}
	if err := s.client.Disconnect(ctx); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
