// Package mongostore_test proves the store's promises on a real MongoDB server and on
// FerretDB: one suite for both.
package mongostore_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/mongostore"
)

// patience bounds one operation of a test.
const patience = 30 * time.Second

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }

// onBoth runs a test on an empty database of each kind of store.
func onBoth(t *testing.T, test func(t *testing.T, uri string)) {
	t.Run("mongodb", func(t *testing.T) { test(t, servers.Mongo(t)) })
	t.Run("ferretdb", func(t *testing.T) { test(t, servers.Ferret(t)) })
}

// open opens a store as a process of its own would, closed at the test's end.
func open(t testing.TB, uri string) *mongostore.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := mongostore.Open(ctx, mongostore.Options{URI: uri, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// database returns what is stored, without the store between.
func database(t testing.TB, uri string) *mongo.Database {
	t.Helper()
	cs, err := connstring.ParseAndValidate(uri)
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Error(err)
		}
	})
	return client.Database(cs.Database)
}

func msg(conv, from, cid string) messaging.NewMessage {
	id := userid.MustParse(from)
	return messaging.NewMessage{Conv: conv, Members: []userid.ID{id, userid.MustParse("peer")}, From: id, CID: cid,
		Type: 1001, Body: []byte(`"` + cid + `"`), TS: time.Now().UnixMilli()}
}

func appendAll(t testing.TB, s *mongostore.Store, msgs ...messaging.NewMessage) []messaging.Appended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := s.Append(ctx, msgs)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// whole reads a conversation from its start to its end, in pages, and checks that its
// numbers are 1, 2, 3 …
func whole(t testing.TB, s *mongostore.Store, conv string) []messaging.StoredMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []messaging.StoredMessage
	for {
		after := int64(len(all))
		msgs, more, err := s.History(ctx, messaging.HistoryQuery{Conv: conv, After: &after, Limit: 200, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, msgs...)
		if !more {
			break
		}
	}
	for i, m := range all {
		if m.Seq != int64(i+1) {
			t.Fatalf("conversation %s: message %d has number %d", conv, i+1, m.Seq)
		}
	}
	return all
}

func wantCIDs(t testing.TB, msgs []messaging.StoredMessage, want ...string) {
	t.Helper()
	if len(msgs) != len(want) {
		t.Fatalf("%d messages, want %d", len(msgs), len(want))
	}
	for i, m := range msgs {
		if m.CID != want[i] {
			t.Fatalf("message %d is %q, want %q", i+1, m.CID, want[i])
		}
	}
}

func numbered(prefix string, from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, prefix+strconv.Itoa(i))
	}
	return out
}

func count(t testing.TB, db *mongo.Database, coll string) int {
	t.Helper()
	n, err := db.Collection(coll).CountDocuments(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}
