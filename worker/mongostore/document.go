package mongostore

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

// Field names, as they are in the store. They are part of the stored data: append, never
// rename.
const (
	fieldID      = "_id"
	fieldFrom    = "from" // canonical user id
	fieldCID     = "cid"  // clientMsgId
	fieldType    = "type" // int32: bizType*1000 + bizOptModule
	fieldBody    = "body" // binary: the raw msgBody
	fieldHash    = "hash" // binary: hashOf(body)
	fieldTS      = "ts"   // int64: Unix milliseconds
	fieldConv    = "conv"
	fieldUser    = "user"    // canonical user id
	fieldMembers = "members" // canonical user ids
	fieldEdge    = "edge"
	fieldDevice  = "device"
	fieldAddr    = "addr"
	fieldSince   = "since" // int64: Unix milliseconds
)

// hash is the first half of the SHA-256 of a body. Only its sender could make two bodies
// of one clientMsgId collide, and would lose nobody's message but the own.
type hash [16]byte

func hashOf(body []byte) hash {
	sum := sha256.Sum256(body)
	return hash(sum[:16])
}

// messageOverhead is the most bytes of a message's document beside its conversation id,
// clientMsgId and body: names, lengths, the sender of at most 384 bytes, hash, numbers.
const messageOverhead = 512

// appendMessage appends the document of a message with its attempted number.
func appendMessage(b []byte, e *entry) []byte {
	m := e.msg
	at, b := bsoncore.AppendDocumentStart(b)
	b = bsoncore.AppendStringElement(b, fieldID, messageID(m.Conv, e.seq))
	b = bsoncore.AppendStringElement(b, fieldFrom, m.From.Token())
	b = bsoncore.AppendStringElement(b, fieldCID, m.CID)
	b = bsoncore.AppendInt32Element(b, fieldType, m.Type)
	b = bsoncore.AppendBinaryElement(b, fieldBody, bson.TypeBinaryGeneric, m.Body)
	b = bsoncore.AppendBinaryElement(b, fieldHash, bson.TypeBinaryGeneric, e.hash[:])
	b = bsoncore.AppendInt64Element(b, fieldTS, m.TS)
	return closeDocument(b, at)
}

// messageDoc is a message as it is read.
type messageDoc struct {
	ID   string `bson:"_id"`
	From string `bson:"from"`
	CID  string `bson:"cid"`
	Type int32  `bson:"type"`
	Body []byte `bson:"body"`
	Hash []byte `bson:"hash"`
	TS   int64  `bson:"ts"`
}

// message returns the document as the business sees it.
func (d *messageDoc) message() (messaging.StoredMessage, error) {
	conv, seq, ok := parseMessageID(d.ID)
	if !ok {
		return messaging.StoredMessage{}, fmt.Errorf("message %q: not an id of this store", d.ID)
	}
	from, err := userid.FromToken(d.From)
	if err != nil {
		return messaging.StoredMessage{}, fmt.Errorf("message %q: sender: %w", d.ID, err)
	}
	return messaging.StoredMessage{Conv: conv, Seq: seq, From: from, CID: d.CID, Type: d.Type, Body: d.Body, TS: d.TS}, nil
}

// isTwin reports whether the document has the entry's sender and clientMsgId.
func (d *messageDoc) isTwin(e *entry) bool {
	return d.From == e.msg.From.Token() && d.CID == e.msg.CID
}

// twin is what is needed of a stored message to answer for a new one with the same
// sender and clientMsgId.
type twin struct {
	conv string
	seq  int64
	kind int32
	hash []byte
	ts   int64
}

func (d *messageDoc) twin() (*twin, error) {
	conv, seq, ok := parseMessageID(d.ID)
	if !ok {
		return nil, fmt.Errorf("message %q: not an id of this store", d.ID)
	}
	return &twin{conv: conv, seq: seq, kind: d.Type, hash: d.Hash, ts: d.TS}, nil
}

// answer is the outcome of a message whose twin is stored.
func (t *twin) answer(e *entry) messaging.Appended {
	if t.conv == e.msg.Conv && t.kind == e.msg.Type && bytes.Equal(t.hash, e.hash[:]) {
		return messaging.Appended{Outcome: messaging.Known, Seq: t.seq, TS: t.ts}
	}
	return messaging.Appended{Outcome: messaging.Reused}
}
