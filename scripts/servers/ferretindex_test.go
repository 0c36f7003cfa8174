package servers

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Without the indexer a read of one document by _id reads the whole table.
func TestFerretFindsADocumentByIndex(t *testing.T) {
	dir := t.TempDir()
	s, err := NewFerretServer(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	client, err := mongo.Connect(options.Client().ApplyURI(s.URI()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	coll := client.Database("some").Collection("things")
	if _, err := coll.InsertOne(context.Background(), bson.D{{Key: "_id", Value: "a"}}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "some.sqlite")+"?mode=rw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxIdleConns(-1) // an EXPLAIN does not notice that the schema has changed since its connection was opened
	names := tables(context.Background(), db)
	if len(names) != 1 {
		t.Fatalf("tables %v, want one", names)
	}
	over := time.After(10 * time.Second)
	for {
		var a, b, c int
		var plan string
		// The statement of FerretDB's collection.Query.
		q := fmt.Sprintf(`EXPLAIN QUERY PLAN SELECT _ferretdb_sjson FROM %q WHERE _ferretdb_sjson->'$._id' = ?`, names[0])
		if err := db.QueryRow(q, `"a"`).Scan(&a, &b, &c, &plan); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(plan, "SEARCH") {
			break
		}
		select {
		case <-time.After(waitStep):
		case <-over:
			t.Fatalf("plan is still %q", plan)
		}
	}
	var doc bson.D
	if err := coll.FindOne(context.Background(), bson.D{{Key: "_id", Value: "a"}}).Decode(&doc); err != nil {
		t.Error(err)
	}
}
