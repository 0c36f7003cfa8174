package mongostore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/mongostore"
)

// failPoint sets a fail point of a mongod and returns how to end it.
func failPoint(t *testing.T, db *mongo.Database, name string, mode any, data bson.D) (off func()) {
	t.Helper()
	set := func(mode any, data bson.D) {
		cmd := bson.D{{Key: "configureFailPoint", Value: name}, {Key: "mode", Value: mode}}
		if data != nil {
			cmd = append(cmd, bson.E{Key: "data", Value: data})
		}
		if err := db.Client().Database("admin").RunCommand(context.Background(), cmd).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set(mode, data)
	return func() { set("off", nil) }
}

// failInserts lets inserts into messages fail, of workers only.
func failInserts(t *testing.T, db *mongo.Database, mode any, how ...bson.E) (off func()) {
	data := append(bson.D{{Key: "failCommands", Value: bson.A{"insert"}}, {Key: "namespace", Value: db.Name() + ".messages"},
		{Key: "appName", Value: "wirepost-worker"}}, how...)
	return failPoint(t, db, "failCommand", mode, data)
}

func once(n int) bson.D { return bson.D{{Key: "times", Value: n}} }

func writeConcernError() bson.E {
	return bson.E{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "errmsg", Value: "not yet"}}}
}

// [r] What a majority has not acknowledged is neither stored nor known, though the
// document is there.
func TestWriteConcernErrorIsNoCommit(t *testing.T) {
	uri := servers.MongodOf(t).URI()
	s, db := open(t, uri), database(t, uri).Client().Database(mongostore.DefaultDatabase)
	appendAll(t, s, msg("k", "u", "c1"))
	defer failInserts(t, db, once(2), writeConcernError())()
	batch := []messaging.NewMessage{msg("k", "u", "c2"), msg("k", "u", "c3")}
	if res, err := s.Append(t.Context(), batch); err == nil {
		t.Fatalf("an insert without a majority is %+v", res)
	}
	if n := count(t, db, "messages"); n != 2 {
		t.Fatalf("%d documents, want 2: the fail point tests nothing", n)
	}
	if res, err := s.Append(t.Context(), batch); err == nil {
		t.Fatalf("a duplicate without a majority is %+v", res)
	}
	res := appendAll(t, s, batch...)
	if res[0].Outcome != messaging.Known || res[0].Seq != 2 || res[1].Outcome != messaging.Stored || res[1].Seq != 3 {
		t.Errorf("afterwards it is %+v", res)
	}
	wantCIDs(t, whole(t, s, "k"), "c1", "c2", "c3")
}

// [r] A last number that only the primary knows is not trusted: when it is rolled back,
// there is no hole. One fail point keeps the majority from committing; the deletion is
// what a new primary would do to the writes that only the old one had.
func TestUncommittedLastIsNotTrusted(t *testing.T) {
	uri := servers.MongodOf(t).URI()
	db := database(t, uri).Client().Database(mongostore.DefaultDatabase)
	local := db.Collection("messages", options.Collection().SetWriteConcern(writeconcern.W1()))
	appendAll(t, open(t, uri), msg("k", "u", "c1"))
	s := open(t, uri)
	blocked := failPoint(t, db, "failCommand", "alwaysOn", bson.D{{Key: "failCommands", Value: bson.A{"find", "insert"}},
		{Key: "namespace", Value: db.Name() + ".messages"}, {Key: "appName", Value: "wirepost-worker"},
		{Key: "blockConnection", Value: true}, {Key: "blockTimeMS", Value: 1500}})
	var up sync.WaitGroup
	up.Go(func() {
		if res := appendAll(t, s, msg("k", "u", "c2")); res[0].Seq != 2 {
			t.Errorf("stored as %+v behind one message", res)
		}
	})
	awaitFailPoint(t, db, "failCommand", 1) // the last number is about to be read
	committing := failPoint(t, db, "disableSnapshotting", "alwaysOn", nil)
	if _, err := local.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "k/0000000000000002"}, {Key: "from", Value: "v"}, {Key: "cid", Value: "uncommitted"}}); err != nil {
		t.Fatal(err)
	}
	awaitFailPoint(t, db, "failCommand", 2) // it was read, and the message is about to be inserted
	if _, err := local.DeleteMany(t.Context(), bson.D{{Key: "cid", Value: "uncommitted"}}); err != nil {
		t.Fatal(err)
	}
	committing()
	up.Wait()
	blocked()
	wantCIDs(t, whole(t, s, "k"), "c1", "c2")
}

// awaitFailPoint waits until a fail point was met so many times since it was set.
func awaitFailPoint(t *testing.T, db *mongo.Database, name string, times int) {
	t.Helper()
	err := db.Client().Database("admin").RunCommand(t.Context(), bson.D{{Key: "waitForFailPoint", Value: name},
		{Key: "timesEntered", Value: times}, {Key: "maxTimeMS", Value: patience.Milliseconds()}}).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// lane appends a sender's messages in order, in batches, each until the store takes it,
// as a lane does, and reports what was acknowledged.
func lane(ctx context.Context, s *mongostore.Store, msgs []messaging.NewMessage, acked func(messaging.NewMessage, messaging.Appended)) error {
	for len(msgs) > 0 {
		n := min(7, len(msgs))
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		res, err := s.Append(actx, msgs[:n])
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue
		}
		for i, r := range res {
			acked(msgs[i], r)
		}
		msgs = msgs[n:]
	}
	return nil
}

// lanes runs several senders, each over a store of its own, in two conversations, while
// harm is done, and checks what is stored in the end.
func lanes(t *testing.T, uri string, harm func(acked func(n int))) {
	const senders, each = 3, 140
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var mu sync.Mutex
	grown := sync.NewCond(&mu)
	answers := map[string]int64{} // sender/cid → number
	var wg sync.WaitGroup
	for u := range senders {
		s := open(t, uri)
		var msgs []messaging.NewMessage
		for i := range each {
			msgs = append(msgs, msg("k"+strconv.Itoa(i/3%2), "u"+strconv.Itoa(u), strconv.Itoa(i)))
		}
		wg.Go(func() {
			err := lane(ctx, s, msgs, func(m messaging.NewMessage, r messaging.Appended) {
				if r.Outcome != messaging.Stored && r.Outcome != messaging.Known {
					t.Errorf("message %s is %+v", m.CID, r)
				}
				mu.Lock()
				answers[m.From.Token()+"/"+m.CID] = r.Seq
				mu.Unlock()
				grown.Broadcast()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	harm(func(n int) {
		mu.Lock()
		defer mu.Unlock()
		for len(answers) < n && ctx.Err() == nil {
			grown.Wait()
		}
	})
	wg.Wait()
	s, total := open(t, uri), 0
	for _, conv := range []string{"k0", "k1"} {
		latest := map[string]int{}
		for _, m := range whole(t, s, conv) {
			i, _ := strconv.Atoi(m.CID)
			if last, ok := latest[m.From.Raw()]; ok && i <= last {
				t.Errorf("message %d of %s stands behind %d", i, m.From, last)
			}
			latest[m.From.Raw()] = i
			if seq := answers[m.From.Token()+"/"+m.CID]; seq != m.Seq {
				t.Errorf("message %s of %s was acknowledged as %d and is %d", m.CID, m.From, seq, m.Seq)
			}
			total++
		}
	}
	if total != senders*each {
		t.Errorf("%d messages are stored, want %d", total, senders*each)
	}
}

func TestFailingInserts(t *testing.T) {
	uri := servers.MongodOf(t).URI()
	db := database(t, uri).Client().Database(mongostore.DefaultDatabase)
	lanes(t, uri, func(acked func(int)) {
		sometimes := bson.D{{Key: "activationProbability", Value: 0.3}}
		for i, how := range []bson.E{
			{Key: "closeConnection", Value: true},
			{Key: "errorCode", Value: 189}, // the primary steps down
			writeConcernError(),
			{Key: "errorCode", Value: 50}, // over time
		} {
			off := failInserts(t, db, sometimes, how)
			acked((i + 1) * 80)
			off()
		}
	})
}

func TestMongodKilled(t *testing.T) {
	m := servers.MongodOf(t)
	lanes(t, m.URI(), func(acked func(int)) {
		for i := range 2 {
			acked((i + 1) * 80)
			m.Kill()
			if err := m.Start(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestMongodPaused(t *testing.T) {
	m := servers.MongodOf(t)
	s := open(t, m.URI())
	appendAll(t, s, msg("k", "u", "c1"))
	m.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	if res, err := s.Append(ctx, []messaging.NewMessage{msg("k", "u", "c2")}); err == nil {
		t.Errorf("a server that stands still stored %+v", res)
	}
	if err := s.Ping(ctx); err == nil {
		t.Error("a server that stands still is ready")
	}
	if waited := time.Since(start); waited > 5*time.Second {
		t.Errorf("it took %v to give up after 500 ms", waited)
	}
	m.Resume()
	appendAll(t, s, msg("k", "u", "c2"), msg("k", "u", "c3"))
	wantCIDs(t, whole(t, s, "k"), "c1", "c2", "c3")
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFerretStopped(t *testing.T) {
	f := servers.FerretServerOf(t)
	lanes(t, f.URI(), func(acked func(int)) {
		for i := range 2 {
			acked((i + 1) * 80)
			f.Stop()
			if err := f.Start(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Open waits for a store that is away, says so, and goes on when it is there.
func TestOpenWaitsForTheStore(t *testing.T) {
	f := servers.FerretServerOf(t)
	f.Stop()
	said := make(chan struct{}, 100)
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) {
		if bytes.Contains(b, []byte("the store is not ready")) {
			said <- struct{}{}
		}
	}), nil))
	var up sync.WaitGroup
	up.Go(func() {
		<-said
		if err := f.Start(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := mongostore.Open(ctx, mongostore.Options{URI: f.URI(), Log: log, Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	up.Wait()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

type writerFunc func(b []byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestOpenGivesUp(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, uri := range []string{"", "http://x", "mongodb://", "mongodb://127.0.0.1:1/?w=x&tls=nonsense"} {
		if _, err := mongostore.Open(t.Context(), mongostore.Options{URI: uri, Log: log, Registry: prometheus.NewRegistry()}); err == nil {
			t.Errorf("%q was opened", uri)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := mongostore.Open(ctx, mongostore.Options{URI: "mongodb://127.0.0.1:1/", Log: log, Registry: prometheus.NewRegistry()})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

// Several processes open an empty database at the same time; on MongoDB the messages
// are a clustered collection.
func TestOpenAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		var wg sync.WaitGroup
		stores := make([]*mongostore.Store, 6)
		for i := range stores {
			wg.Go(func() {
				s, err := mongostore.Open(t.Context(), mongostore.Options{URI: uri, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
				if err != nil {
					t.Error(err)
					return
				}
				stores[i] = s
			})
		}
		wg.Wait()
		for _, s := range stores {
			if s == nil {
				continue
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		db := database(t, uri)
		indexes, err := db.Collection("messages").Indexes().ListSpecifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unique := 0
		for _, ix := range indexes {
			if ix.Name == "sender_cid" && ix.Unique != nil && *ix.Unique {
				unique++
			}
		}
		if unique != 1 {
			t.Errorf("%d unique indexes over sender and clientMsgId: %+v", unique, indexes)
		}
		if stores[0].Kind() == mongostore.MongoDB {
			var coll struct {
				Options struct {
					Clustered bson.Raw `bson:"clusteredIndex"`
				} `bson:"options"`
			}
			cur, err := db.ListCollections(t.Context(), bson.D{{Key: "name", Value: "messages"}})
			if err != nil || !cur.Next(t.Context()) {
				t.Fatal(err)
			}
			defer cur.Close(t.Context())
			if err := cur.Decode(&coll); err != nil || coll.Options.Clustered == nil {
				t.Errorf("messages are not clustered: %v, %v", cur.Current, err)
			}
		}
	})
}
