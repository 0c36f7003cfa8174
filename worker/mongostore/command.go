package mongostore

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// maxCommand is after how many bytes of documents an insert is cut into another command:
// a command holds as much as one document, 16 MiB.
const maxCommand = 8 << 20

// commands are buffers of insert commands. A command is copied by the driver before it
// is sent.
var commands = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// insertEntries is backend.insert for all stores. It writes the insert command itself:
// the driver's InsertMany decodes each document again to learn its _id, which doubles
// the client's processor time. There is no retryable write in it, and none is needed:
// what is repeated is found by its keys.
func insertEntries(ctx context.Context, coll *mongo.Collection, entries []*entry, ordered bool) ([]refusal, error) {
	var out []refusal
	for done := 0; done < len(entries); {
		n := fitting(entries[done:])
		failed, err := insertCommand(ctx, coll, entries[done:done+n], ordered)
		if err != nil {
			return nil, err
		}
		for _, f := range failed {
			f.index += done
			out = append(out, f)
		}
		if ordered && len(failed) > 0 {
			break
		}
		done += n
	}
	return out, nil
}

// fitting is how many entries go into one command, at least one.
func fitting(entries []*entry) int {
	size := 0
	for i, e := range entries {
		size += e.documentBytes()
		if i > 0 && size > maxCommand {
			return i
		}
	}
	return len(entries)
}

// documentBytes is how many bytes the entry's document has at most.
func (e *entry) documentBytes() int {
	return messageOverhead + len(e.msg.Conv) + len(e.msg.CID) + len(e.msg.Body)
}

func documentBytes(entries []*entry) int {
	size := 0
	for _, e := range entries {
		size += e.documentBytes()
	}
	return size
}

func insertCommand(ctx context.Context, coll *mongo.Collection, entries []*entry, ordered bool) ([]refusal, error) {
	buf := commands.Get().(*[]byte)
	*buf = appendInsert((*buf)[:0], coll.Name(), entries, ordered)
	res := coll.Database().RunCommand(ctx, bson.Raw(*buf))
	if cap(*buf) <= maxCommand {
		commands.Put(buf)
	}
	failed, err := refusals(res.Err())
	if err != nil || len(failed) > 0 {
		return failed, err
	}
	var answer struct {
		N int `bson:"n"`
	}
	if err := res.Decode(&answer); err != nil {
		return nil, fmt.Errorf("insert: %w", err)
	}
	if answer.N != len(entries) {
		return nil, fmt.Errorf("insert: the store says that it took %d of %d documents and why not the others it does not say", answer.N, len(entries))
	}
	return nil, nil
}

// appendInsert appends an insert command with the documents of entries, acknowledged by
// a majority and journaled.
func appendInsert(b []byte, coll string, entries []*entry, ordered bool) []byte {
	cmd, b := bsoncore.AppendDocumentStart(b)
	b = bsoncore.AppendStringElement(b, "insert", coll)
	b = bsoncore.AppendBooleanElement(b, "ordered", ordered)
	wc, b := bsoncore.AppendDocumentElementStart(b, "writeConcern")
	b = bsoncore.AppendStringElement(b, "w", "majority")
	b = bsoncore.AppendBooleanElement(b, "j", true)
	b = closeDocument(b, wc)
	docs, b := bsoncore.AppendArrayElementStart(b, "documents")
	var index [8]byte
	for i, e := range entries {
		b = append(b, byte(bson.TypeEmbeddedDocument))
		b = append(append(b, strconv.AppendInt(index[:0], int64(i), 10)...), 0)
		b = appendMessage(b, e)
	}
	b = closeDocument(b, docs)
	return closeDocument(b, cmd)
}

// closeDocument ends the document or array that began at at.
func closeDocument(b []byte, at int32) []byte {
	b, _ = bsoncore.AppendDocumentEnd(b, at) // its only error is an at that is not in b
	return b
}
