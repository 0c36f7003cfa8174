package client

import (
	"encoding/json"
	"fmt"
	"time"
)

// Event is one of Message, Connected, Synced, Disconnected, Stored, Refused, Notice,
// Skipped, Pushed. New kinds may be added: a type switch ignores what it does not know.
type Event interface{ event() }

// Message is a stored message of a conversation of the user, own ones included. Each
// comes once, in order of Seq within its conversation, without a gap.
type Message struct {
	ConvID      string
	Seq         int64
	From        string
	To          string // of a direct conversation: the other member as seen from From
	ClientMsgID string
	TS          time.Time // of storing; never orders
	BizType     int
	BizOp       int
	Body        json.RawMessage
	Own         bool // From is the user of this client, on whatever device
}

// Connected says that a login succeeded. With Resumed what was missed follows by
// itself; without, the client syncs and says Synced when it is done.
type Connected struct {
	Resumed bool
	ConnID  string
	Edge    string
	UserID  string
}

// Synced says that a client which could not resume has every message that was stored
// before its login, or, when it is fresh, knows where the conversations end.
type Synced struct{}

// Disconnected says that the connection ended, or that none could be made. The client
// connects again by itself unless Final is set; then Run returns Err.
type Disconnected struct {
	Code  int // WebSocket close code; 1006 when the peer sent none
	Err   error
	Final bool
}

// Stored says that an own send is stored. Its Message may come before or after.
type Stored struct {
	ClientMsgID string
	Result
}

// Refused says that an own send will never be stored.
type Refused struct {
	ClientMsgID string
	Err         error // *RefusedError, ErrTooLarge
}

// Notice is a word of the gateway. The client has already begun to do what it asks for.
type Notice struct {
	Code       int
	Reason     string
	RetryAfter time.Duration
}

// Skipped says that history no longer holds the messages From … To of a conversation,
// and that the events go on behind them.
type Skipped struct {
	ConvID   string
	From, To int64
}

// Pushed is a frame of an application's service (bizType 1000 and above) that belongs to
// no conversation. It is in no history, and may come twice.
type Pushed struct {
	From    string
	BizType int
	BizOp   int
	Body    json.RawMessage
}

func (Message) event()      {}
func (Connected) event()    {}
func (Synced) event()       {}
func (Disconnected) event() {}
func (Stored) event()       {}
func (Refused) event()      {}
func (Notice) event()       {}
func (Skipped) event()      {}
func (Pushed) event()       {}

// Result is where a send was stored.
type Result struct {
	ConvID string
	Seq    int64
	TS     time.Time
}

// RefusedError is the gateway's permanent refusal of a send or of a request.
type RefusedError struct {
	Code   int    // one of the Code constants of package protocol
	Reason string // for logs
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused with code %d: %s", e.Code, e.Reason)
}

// ClosedError is a WebSocket close by the gateway.
type ClosedError struct {
	Code   int
	Reason string
}

func (e *ClosedError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("closed by the gateway with code %d", e.Code)
	}
	return fmt.Sprintf("closed by the gateway with code %d: %s", e.Code, e.Reason)
}

// queue holds the events that wait for the reader of the channel, and what becomes part
// of the State when each is handed over.
type queue struct {
	waiting []queued
	head    int

	cursors map[string]int64 // of what was handed over; nil until the baseline is known
	resume  string           // belongs to cursors
}

type queued struct {
	ev     Event
	resume string    // token that is safe once ev is handed over; "" for none
	send   *Outgoing // the send that ev resolves: part of the State until somebody was told
}

func (q *queue) len() int { return len(q.waiting) - q.head }

func (q *queue) push(ev Event) { q.waiting = append(q.waiting, queued{ev: ev}) }

// resolve tells what became of a send.
func (q *queue) resolve(ev Event, e *entry) {
	q.waiting = append(q.waiting, queued{ev: ev, send: &Outgoing{ClientMsgID: e.id, Frame: e.frame}})
}

// tells reports whether the outcome of a send waits for the reader.
func (q *queue) tells(id string) bool {
	for _, w := range q.waiting[q.head:] {
		if w.send != nil && w.send.ClientMsgID == id {
			return true
		}
	}
	return false
}

// save makes a token part of the state behind everything that waits now.
func (q *queue) save(resume string) {
	if q.len() == 0 {
		q.resume = resume
		return
	}
	q.waiting[len(q.waiting)-1].resume = resume
}

func (q *queue) first() Event { return q.waiting[q.head].ev }

// handed takes the first event off the queue and moves the state on.
func (q *queue) handed() {
	e := q.waiting[q.head]
	q.waiting[q.head] = queued{}
	q.head++
	if q.head > len(q.waiting)/2 { // at most as many moves as events: cheap, and the slice stays small
		n := copy(q.waiting, q.waiting[q.head:])
		clear(q.waiting[n:])
		q.waiting, q.head = q.waiting[:n], 0
	}
	switch ev := e.ev.(type) {
	case Message:
		q.moved(ev.ConvID, ev.Seq)
	case Skipped:
		q.moved(ev.ConvID, ev.To)
	}
	if e.resume != "" {
		q.resume = e.resume
	}
}

func (q *queue) moved(conv string, seq int64) {
	if q.cursors == nil {
		q.cursors = map[string]int64{}
	}
	q.cursors[conv] = seq
}
