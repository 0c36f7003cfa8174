package messaging

import (
	"context"
	"time"

	"github.com/wirepost/wirepost/shared/userid"
)

// Store is what this room needs of a store. worker/mongostore implements it; every
// method may be called concurrently, waits for no longer than ctx, and returns an error
// only for what may succeed later (the store is away): the caller repeats the call.
type Store interface {
	// Append stores messages, in the order given within each conversation, and returns
	// one result each. A message is committed (majority, journaled), with its conversation
	// and members, when its result says Stored or Known. After an error nothing is known
	// of any of them, and the whole call may be repeated.
	Append(ctx context.Context, msgs []NewMessage) ([]Appended, error)

	// History returns messages of one conversation in ascending order of seq: those after
	// q.After, else those before q.Before, else the newest; more tells whether there are
	// further ones in that direction.
	History(ctx context.Context, q HistoryQuery) (msgs []StoredMessage, more bool, err error)

	// Conversations returns the conversations of a user, latest first, each with its last
	// message, and the cursor of the next page ("" at the end).
	Conversations(ctx context.Context, user userid.ID, limit int, cursor string) (convs []Conversation, next string, err error)

	// ConversationIDs returns all conversations of a user in a stable order.
	ConversationIDs(ctx context.Context, user userid.ID) ([]string, error)

	// ApplySessions records connects and disconnects, in order.
	ApplySessions(ctx context.Context, events []SessionEvent) error
}

// NewMessage is a message that is to be stored.
type NewMessage struct {
	Conv    string      // conversation id, built from canonical user ids only
	Members []userid.ID // of the conversation; inserted when it does not exist yet
	From    userid.ID
	CID     string // clientMsgId; (From, CID) is unique for ever
	Type    int32  // bizType*1000 + bizOptModule
	Body    []byte // raw msgBody; must not be changed, not even after an Append that failed
	TS      int64  // Unix milliseconds, of this attempt
	Trace   string // traceparent of the frame that asks for it; "": none. It is not stored
}

// Outcome is what became of a NewMessage.
type Outcome uint8

// The outcomes of Append.
const (
	Stored  Outcome = iota // stored now
	Known                  // the same message was stored before: Seq and TS are of then
	Reused                 // (From, CID) is taken by another payload, type or conversation
	Refused                // the store will never take it; Reason says why
)

// Appended is the result of one NewMessage.
type Appended struct {
	Outcome Outcome
	Seq     int64  // of Stored and Known
	TS      int64  // of Stored and Known
	Reason  string // of Refused
}

// StoredMessage is a message as it is in history.
type StoredMessage struct {
	Conv string
	Seq  int64
	From userid.ID
	CID  string
	Type int32
	Body []byte
	TS   int64
}

// HistoryQuery asks for a page of a conversation.
type HistoryQuery struct {
	Conv     string
	After    *int64 // messages with a higher seq, the lowest first
	Before   *int64 // messages with a lower seq, the highest ones, returned ascending
	Limit    int    // ≥ 1
	MaxBytes int    // of bodies together; at least one message is returned
}

// Conversation is one conversation of a user.
type Conversation struct {
	Conv string
	Last StoredMessage
}

// SessionEvent is a connect (Closed false) or a disconnect.
type SessionEvent struct {
	Conn, Edge string
	User       userid.ID
	DeviceID   string // of a connect
	Addr       string // of a connect
	At         time.Time
	Closed     bool
	Reason     string // of a disconnect
}

// Deliverer brings frames to users. worker/delivery implements it.
type Deliverer interface {
	// Deliver publishes the frames on the downlink, in order, and returns nil when all
	// of them have been acknowledged by JetStream; after an error the whole call may be
	// repeated. Data must start with `{"` and must not be changed afterwards.
	Deliver(ctx context.Context, frames []Frame) error
	// Reply sends one frame that may be lost: a direct reply to a query.
	Reply(frame Frame) error
}

// Frame is one JSON text frame for a user's devices, or for one connection of the user.
type Frame struct {
	To   userid.ID
	Conn string // "" for all devices
	Data []byte

	Echo  string // value of envelope.Echo, for the sender's copy of a message; "": none
	Trace string // traceparent of what led to it; "": none
}

// Dead is an event that can never succeed.
type Dead struct {
	Index  int // in the batch
	Reason string
}
