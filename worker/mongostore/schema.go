package mongostore

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The collections. They are part of the stored data.
const (
	collMessages      = "messages"
	collConversations = "conversations"
	collMembers       = "members"
	collSessions      = "sessions"
)

// Kind is which store answers.
type Kind string

// The kinds of store.
const (
	MongoDB  Kind = "mongodb"
	FerretDB Kind = "ferretdb"
)

// detected is what a store says about itself.
type detected struct {
	kind       Kind
	version    string
	clustered  bool // it has clustered collections: MongoDB ≥ 5.3
	standalone bool // a MongoDB that belongs to no replica set
}

// detect asks the store what it is.
func detect(ctx context.Context, db *mongo.Database) (detected, error) {
	var info struct {
		Version      string  `bson:"version"`
		VersionArray []int32 `bson:"versionArray"`
		Ferret       string  `bson:"ferretdbVersion"`
	}
	if err := db.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&info); err != nil {
		return detected{}, fmt.Errorf("ask the store for its version: %w", err)
	}
	if info.Ferret != "" {
		return detected{kind: FerretDB, version: info.Ferret}, nil
	}
	var hello struct {
		Set string `bson:"setName"`
		Msg string `bson:"msg"` // "isdbgrid" of a router
	}
	if err := db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return detected{}, fmt.Errorf("ask the store for its role: %w", err)
	}
	return detected{kind: MongoDB, version: info.Version, clustered: atLeast(info.VersionArray, 5, 3),
		standalone: hello.Set == "" && hello.Msg == ""}, nil
}

func atLeast(version []int32, major, minor int32) bool {
	return len(version) >= 2 && (version[0] > major || version[0] == major && version[1] >= minor)
}

// ensureSchema creates what is missing. Two at once do no harm.
func ensureSchema(ctx context.Context, db *mongo.Database, d detected) error {
	messages := options.CreateCollection()
	if d.clustered {
		messages.SetClusteredIndex(bson.D{{Key: "key", Value: bson.D{{Key: fieldID, Value: 1}}}, {Key: "unique", Value: true}})
	}
	if err := create(ctx, db, collMessages, messages); err != nil {
		return err
	}
	for _, name := range []string{collConversations, collMembers, collSessions} {
		if err := create(ctx, db, name, options.CreateCollection()); err != nil {
			return err
		}
	}
	_, err := db.Collection(collMessages).Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys:    bson.D{{Key: fieldFrom, Value: 1}, {Key: fieldCID, Value: 1}},
		Options: options.Index().SetName("sender_cid").SetUnique(true),
	})
	if err != nil {
		return fmt.Errorf("create the unique index of messages: %w", err)
	}
	_, err = db.Collection(collSessions).Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys: bson.D{{Key: fieldEdge, Value: 1}}, Options: options.Index().SetName("edge")})
	if err != nil {
		return fmt.Errorf("create the index of sessions: %w", err)
	}
	return nil
}

func create(ctx context.Context, db *mongo.Database, name string, opts *options.CreateCollectionOptionsBuilder) error {
	const namespaceExists = 48
	err := db.CreateCollection(ctx, name, opts)
	var se mongo.ServerError
	if err != nil && (!errors.As(err, &se) || !se.HasErrorCode(namespaceExists)) {
		return fmt.Errorf("create collection %s: %w", name, err)
	}
	return nil
}
