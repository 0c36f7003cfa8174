package mongostore

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// dupKey tells which unique key refused a document.
type dupKey uint8

const (
	notDup     dupKey = iota // it was refused for another reason
	dupUnknown               // the store does not say
	dupID                    // _id: the number is taken
	dupTwin                  // (from, cid): the message is known
)

// refusal is a document that the store did not take.
type refusal struct {
	index  int
	dup    dupKey
	reason string // when it is no duplicate
}

// Codes of a document that will never be taken. Every other code may pass: the caller
// repeats the call.
var permanentCodes = map[int]bool{
	2:     true, // BadValue
	22:    true, // InvalidBSON
	53:    true, // InvalidIdField
	121:   true, // DocumentValidationFailure
	10334: true, // BSONObjectTooLarge
	17280: true, // KeyTooLong
}

const codeDuplicate = 11000

// insertMany inserts documents and tells which were refused. An error means that nothing
// is known of any of them; a write-concern error is one.
func insertMany(ctx context.Context, coll *mongo.Collection, docs []any, ordered bool) ([]refusal, error) {
	_, err := coll.InsertMany(ctx, docs, options.InsertMany().SetOrdered(ordered))
	return refusals(err)
}

// refusals reads the answer to an insert.
func refusals(err error) ([]refusal, error) {
	if err == nil {
		return nil, nil
	}
	failed, uncommitted := writeErrors(err)
	if uncommitted || len(failed) == 0 {
		return nil, fmt.Errorf("insert: %w", err)
	}
	out := make([]refusal, 0, len(failed))
	for _, we := range failed {
		switch {
		case we.Code == codeDuplicate:
			out = append(out, refusal{index: we.Index, dup: keyOf(we.Raw)})
		case permanentCodes[we.Code]:
			out = append(out, refusal{index: we.Index, reason: we.Message})
		default:
			return nil, fmt.Errorf("insert: %w", err)
		}
	}
	return out, nil
}

// writeErrors returns what an error says of single documents, and whether there is a
// write-concern error beside.
func writeErrors(err error) (failed []mongo.WriteError, uncommitted bool) {
	var one mongo.WriteException
	if errors.As(err, &one) {
		return one.WriteErrors, one.WriteConcernError != nil
	}
	var bulk mongo.BulkWriteException
	if errors.As(err, &bulk) {
		for _, we := range bulk.WriteErrors {
			failed = append(failed, we.WriteError)
		}
		return failed, bulk.WriteConcernError != nil
	}
	return nil, false
}

// keyOf tells which key a duplicate-key error is about. MongoDB says it in keyPattern.
func keyOf(raw bson.Raw) dupKey {
	pattern, ok := raw.Lookup("keyPattern").DocumentOK()
	if !ok {
		return dupUnknown
	}
	if _, err := pattern.LookupErr(fieldID); err == nil {
		return dupID
	}
	if _, err := pattern.LookupErr(fieldCID); err == nil {
		return dupTwin
	}
	return dupUnknown
}

// insertNew inserts documents of which some may exist already, and returns the indexes
// of those that do.
func insertNew(ctx context.Context, coll *mongo.Collection, docs []any) (existing []int, err error) {
	if len(docs) == 0 {
		return nil, nil
	}
	failed, err := insertMany(ctx, coll, docs, false)
	if err != nil {
		return nil, err
	}
	for _, f := range failed {
		if f.dup == notDup {
			return nil, fmt.Errorf("insert into %s: refused: %s", coll.Name(), f.reason)
		}
		existing = append(existing, f.index)
	}
	return existing, nil
}
