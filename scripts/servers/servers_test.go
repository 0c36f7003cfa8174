package servers_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
)

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }

func TestNATSRestartKeepsPortAndMessages(t *testing.T) {
	s := servers.NATS(t)
	url := s.URL()
	js, err := jetstream.New(s.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.URL() != url {
		t.Fatalf("address is %s after a restart, was %s", s.URL(), url)
	}
	js, err = jetstream.New(s.Conn(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := stream.GetMsg(t.Context(), 1); err != nil || string(msg.Data) != "kept" {
		t.Fatalf("message after a restart: %v, %v", msg, err)
	}
}

// What FerretDB has acknowledged is in its files at once: a copy of them, taken while it
// runs, is what kill -9 would leave behind.
// Tests that start a store each run side by side; the race detector has found them out.
func TestFerretsStartAtTheSameTime(t *testing.T) {
	var all sync.WaitGroup
	for range 4 {
		dir := t.TempDir()
		all.Go(func() {
			s, err := servers.NewFerretServer(dir)
			if err != nil {
				t.Error(err)
				return
			}
			s.Stop()
		})
	}
	all.Wait()
}

func TestFerretAcknowledgesWhatIsInItsFiles(t *testing.T) {
	dir, crashed := t.TempDir(), t.TempDir()
	first, err := servers.NewFerretServer(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Stop)
	coll := connect(t, first.URI()).Database("d").Collection("c")
	for i := range 500 {
		if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: int32(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files of FerretDB: %v, %v", files, err)
	}
	for _, f := range files {
		if filepath.Ext(f) == ".sqlite-shm" {
			continue // an index of the log, made anew from it
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(crashed, filepath.Base(f)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second, err := servers.NewFerretServer(crashed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Stop)
	n, err := connect(t, second.URI()).Database("d").Collection("c").CountDocuments(t.Context(), bson.D{})
	if err != nil || n != 500 {
		t.Fatalf("%d documents after a crash, %v", n, err)
	}
}

func TestMongoTakesWritesAndSurvivesKill(t *testing.T) {
	m := servers.MongodOf(t)
	coll := connect(t, m.URI()).Database("d").Collection("c")
	if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}); err != nil {
		t.Fatal(err)
	}
	m.Kill()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 1 {
		t.Fatalf("%d documents after kill -9, %v", n, err)
	}
}

func TestMongoIsSharedAndDatabasesAreNot(t *testing.T) {
	a, b := servers.Mongo(t), servers.Mongo(t)
	if a == b {
		t.Fatal("two calls returned the same database")
	}
	if err := connect(t, a).Ping(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, uri string) *mongo.Client {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Error(err)
		}
	})
	return client
}
