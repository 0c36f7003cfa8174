// Package protocol is the client protocol im.json.v1: the message object, its codes
// and the WebSocket close codes. shared/PROTOCOL.md is the document for people who
// write another implementation; a test keeps the two alike.
//
// It knows neither sockets nor NATS.
package protocol

import "encoding/json"

// Subprotocol is the WebSocket subprotocol that this package describes; it is assumed
// when a client offers none. TokenSubprotocol is the prefix of the offered
// subprotocol that carries a token in a handshake: it is never answered.
const (
	Subprotocol      = "im.json.v1"
	TokenSubprotocol = "im.token."
)

// Values of msgType. Never renumbered; readers ignore a value that they do not know.
const (
	Heartbeat = 1
	Login     = 2
	Business  = 3
	Notice    = 4 // from the gateway: Code is one of the Notice codes
)

// Values of bizType of a Business message. 1–999 belong to the project, 1000 and up
// to applications. Never renumbered.
const (
	BizChat  = 1 // chat messages
	BizQuery = 2 // history and conversations

	// 3 receipts, 4 groups, 5 presence and sessions: reserved.
)

// Values of bizOptModule with BizChat.
const (
	OpSend = 1 // msgBody: any JSON value, stored as it is
)

// Values of bizOptModule with BizQuery.
const (
	OpHistory       = 1 // HistoryRequest → HistoryReply
	OpConversations = 2 // ConversationsRequest → ConversationsReply
	OpSync          = 3 // SyncRequest → SyncReply
)

// Limits of the protocol.
const (
	MaxBody        = 64 << 10  // bytes of msgBody as sent (default of the worker's BODY_LIMIT)
	MaxDepth       = 64        // objects and arrays of msgBody inside each other
	MaxFrame       = 128 << 10 // bytes of a whole WebSocket message (default of the edge's MAX_FRAME)
	MaxReqID       = 64        // bytes
	MaxClientMsgID = 64        // bytes
	MaxDeviceID    = 128       // bytes
	MaxPage        = 200       // messages of one page of history; DefaultPage if none is asked for
	DefaultPage    = 50
	MaxPageBytes   = 256 << 10 // a page is cut there, with more:true
	MaxSeq         = 1<<53 - 1 // what a JavaScript number holds
)

// Message is the message object, in both directions. Zero fields are absent on the wire.
type Message struct {
	Resume         string          `json:"resume,omitempty"` // opaque token ≤ 64 bytes, from the gateway
	MsgType        int             `json:"msgType"`
	SendUserID     string          `json:"sendUserId,omitempty"`
	ReceivedUserID string          `json:"receivedUserId,omitempty"`
	BizType        int             `json:"bizType,omitempty"`
	BizOptModule   int             `json:"bizOptModule,omitempty"`
	ConvID         string          `json:"convId,omitempty"` // opaque
	Seq            int64           `json:"seq,omitempty"`    // from 1, gapless per ConvID
	TS             int64           `json:"ts,omitempty"`     // Unix milliseconds; never orders
	ClientMsgID    string          `json:"clientMsgId,omitempty"`
	ReqID          string          `json:"reqId,omitempty"` // comes back verbatim in direct replies
	Code           int             `json:"code,omitempty"`
	Reason         string          `json:"reason,omitempty"` // for logs, never parsed
	RetryAfterMs   int64           `json:"retryAfterMs,omitempty"`
	MsgBody        json.RawMessage `json:"msgBody,omitempty"`
}

// LoginRequest is the msgBody of a Login message from a client. A second login on a
// live connection, for the same user, extends the time until the token expires.
type LoginRequest struct {
	Token    string `json:"token"`
	DeviceID string `json:"deviceId,omitempty"`
	Resume   string `json:"resume,omitempty"` // the last token, from any edge
}

// LoginReply is the msgBody of the answer to a login.
type LoginReply struct {
	ConnID      string   `json:"connId"`
	Edge        string   `json:"edge"`
	UserID      string   `json:"userId"`
	ServerTime  int64    `json:"serverTime"`  // Unix milliseconds
	HeartbeatMs int64    `json:"heartbeatMs"` // how often the client sends a heartbeat
	MaxFrame    int      `json:"maxFrame"`    // bytes of a whole WebSocket message
	ExpiresAt   int64    `json:"expiresAt,omitempty"`
	Resumed     bool     `json:"resumed"` // true: everything since the resume token follows; false: sync
	Features    []string `json:"features"`
}

// HistoryRequest asks for one page of a conversation, in ascending order of seq. The
// conversation is ConvID, or the direct one with the message's receivedUserId.
// AfterSeq gives the page that follows it; else BeforeSeq the page that ends before
// it; neither, the newest page.
type HistoryRequest struct {
	ConvID    string `json:"convId,omitempty"`
	AfterSeq  *int64 `json:"afterSeq,omitempty"`
	BeforeSeq *int64 `json:"beforeSeq,omitempty"`
	Limit     int    `json:"limit,omitempty"` // ≤ MaxPage; 0 is DefaultPage
}

// HistoryReply is a page of history.
type HistoryReply struct {
	ConvID   string    `json:"convId"`
	Messages []Message `json:"messages"`
	More     bool      `json:"more"` // in the direction that was asked for
}

// ConversationsRequest asks for the user's conversations, latest first.
type ConversationsRequest struct {
	Limit  int    `json:"limit,omitempty"`  // ≤ MaxPage; 0 is DefaultPage
	Cursor string `json:"cursor,omitempty"` // of the page before; "" for the first
}

// ConversationsReply is a page of the user's conversations.
type ConversationsReply struct {
	Conversations []Conversation `json:"conversations"`
	More          bool           `json:"more"`
	Cursor        string         `json:"cursor,omitempty"`
}

// Conversation is one conversation of a user.
type Conversation struct {
	ConvID  string   `json:"convId"`
	Peer    string   `json:"peer,omitempty"` // of a direct conversation
	LastSeq int64    `json:"lastSeq"`
	Last    *Message `json:"last,omitempty"` // absent when the page is full, see MaxPageBytes
}

// SyncRequest asks for what the client does not have: in each of the user's
// conversations the messages after Cursors[convId] (absent: from the first). The
// client repeats it, its cursors moved on, until More is false.
type SyncRequest struct {
	Cursors map[string]int64 `json:"cursors"`
	Limit   int              `json:"limit,omitempty"` // ≤ MaxPage; 0 is DefaultPage
}

// SyncReply holds messages in ascending order of seq within each conversation.
type SyncReply struct {
	Messages []Message `json:"messages"`
	More     bool      `json:"more"`
}
