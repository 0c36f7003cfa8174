// Package history is what a run of chaos leaves behind: one record for everything that a
// client or a fault did, as lines of JSON in the order in which they happened, with one
// monotonic clock. It is all that the checker reads, so a history can be recorded on one
// machine and checked on another.
//
// It judges nothing. A field that a kind of record does not name is absent.
package history

// Kind is what a record tells.
type Kind string

// The kinds of records. "dev" is one device of a user, "life" counts its processes from
// 1, "conn" names one WebSocket connection of it; all three are unique in a history.
const (
	// Run opens a history: note says what ran (seed, store, version), names in "env".
	Run Kind = "run"

	// Begin: a client starts. user, dev, life; cursors are those of the state it starts
	// with. fresh: it has no state and shows only what is stored after its baseline;
	// without fresh and without cursors it shows everything from seq 1. slow: it stops
	// reading for long times, so when it received something says little.
	Begin Kind = "begin"
	// End: the client was stopped, and showed nothing after this. dev, life. code 1: it
	// was cut off without a word, as in a crash; what it had not shown yet is lost.
	End Kind = "end"

	// What a tap between client and gateway saw, in wire order.

	// Open: the gateway accepted a login. dev, life, conn, edge; resumed as it said.
	Open Kind = "open"
	// Put: the client wrote a send. dev, life, conn, cid, to.
	Put Kind = "put"
	// Wire: the gateway wrote a stored message. dev, life, conn, conv, seq, cid, from, to, body.
	Wire Kind = "wire"
	// Later: the gateway refused a send for now. dev, life, conn, cid, code.
	Later Kind = "later"
	// Never: the gateway refused a send for ever. dev, life, conn, cid, code.
	Never Kind = "never"
	// Resync: the gateway said that frames may have been missed. dev, life, conn.
	Resync Kind = "resync"
	// Close: the connection is over. dev, life, conn; code is the gateway's close code, 0
	// when none was read.
	Close Kind = "close"

	// What the program that uses the client saw.

	// Send: the program calls Send. dev, life, user, cid, to, body. again: on purpose with
	// a cid that was sent before, with the same content; it must be acknowledged again.
	// reuse: on purpose with a cid that was sent before and another body; it must be refused.
	Send Kind = "send"
	// Ack: the client says that a send is stored. dev, life, cid, conv, seq.
	Ack Kind = "ack"
	// Refusal: the client says that a send will never be stored. dev, life, cid, code.
	Refusal Kind = "refusal"
	// Event: a message came out of the client's event channel. dev, life, conv, seq, cid, from, to, body.
	Event Kind = "event"
	// Skipped: the client says that history no longer holds seq to upto of conv. dev, life, conv, seq, upto.
	Skipped Kind = "skipped"
	// Synced: the client has everything that was stored before its login. dev, life.
	Synced Kind = "synced"
	// Outbox: after everything; seq is how many sends of the client are unresolved. dev, life.
	Outbox Kind = "outbox"

	// What the run itself did.

	// Fault: something is broken. fault is its number, name its kind, note the target.
	// kill: the thing does not come back by itself, so service must return within the bound
	// from here on; otherwise from Heal on.
	Fault Kind = "fault"
	// Heal: the fault is over: what was broken is put right, as far as the run puts it right.
	Heal Kind = "heal"
	// Wiped: what waited in the uplink is gone, or the dead stream is: all data of NATS, or
	// one of their streams.
	Wiped Kind = "wiped"
	// Poison: something that can never succeed was put into the uplink. cid identifies it.
	// kill: it kills the worker that works it.
	Poison Kind = "poison"
	// Dead: it was found in the dead stream. cid, note is the reason.
	Dead Kind = "dead"
	// Quiet: nothing is sent any more and every fault is healed.
	Quiet Kind = "quiet"
	// Lag: how much waits in the uplink. seq is the number of messages over all lanes.
	Lag Kind = "lag"
	// Row: one message of the final history, as a member read it. user, conv, seq, cid, from, to, body.
	Row Kind = "row"
	// Read: user has read all rows of conv; seq is their number.
	Read Kind = "read"
	// Done: the history is complete. Without it the run broke off.
	Done Kind = "done"
)

// Record is one line of a history.
type Record struct {
	T    int64 `json:"t"` // nanoseconds since the run began, monotonic; set by the Writer
	Kind Kind  `json:"k"`

	// Who.
	User string `json:"user,omitempty"`
	Dev  string `json:"dev,omitempty"`
	Life int    `json:"life,omitempty"`
	Conn string `json:"conn,omitempty"`
	Edge string `json:"edge,omitempty"`

	// Which message.
	CID  string `json:"cid,omitempty"`
	Conv string `json:"conv,omitempty"`
	Seq  int64  `json:"seq,omitempty"`
	Upto int64  `json:"upto,omitempty"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Body string `json:"body,omitempty"`
	Code int    `json:"code,omitempty"`

	// How.
	Fresh   bool `json:"fresh,omitempty"`
	Slow    bool `json:"slow,omitempty"`
	Resumed bool `json:"resumed,omitempty"`
	Again   bool `json:"again,omitempty"`
	Reuse   bool `json:"reuse,omitempty"`
	Kill    bool `json:"kill,omitempty"`

	Cursors map[string]int64 `json:"cursors,omitempty"`

	Fault int    `json:"fault,omitempty"`
	Name  string `json:"name,omitempty"`
	Note  string `json:"note,omitempty"`

	Env map[string]string `json:"env,omitempty"`
}
