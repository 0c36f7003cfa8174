package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	// window is how many unacknowledged sends are on the wire at most.
	window = 256
	// longestAck bounds the doubling of Options.AckTimeout. A gateway that does not store
	// what it was sent ends the connection, so a repetition on the same one seldom helps.
	longestAck = 5 * time.Minute
)

var (
	errNoReceiver = errors.New("send: no receiver")
	errBadBody    = errors.New("send: body is not valid JSON")
	errIDInUse    = errors.New("send: clientMsgId waits in the outbox already, or its Stored or Refused was not read yet")
)

// Pending is a send on its way.
type Pending struct {
	// ClientMsgID identifies the send for ever; a Send with it and the same arguments,
	// also by another process, stores nothing twice.
	ClientMsgID string

	done chan struct{} // closed when res or err is set
	res  Result
	err  error
}

func newPending(id string) *Pending { return &Pending{ClientMsgID: id, done: make(chan struct{})} }

// Done is closed when the send is resolved.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Result returns where the send was stored, or why it was not: *RefusedError or
// ErrTooLarge (it never will be), ErrClosed (it may be; it is in the final State). It
// may be called once Done is closed.
func (p *Pending) Result() (Result, error) { return p.res, p.err }

// Wait waits for Result, or for ctx.
func (p *Pending) Wait(ctx context.Context) (Result, error) {
	select {
	case <-p.done:
		return p.res, p.err
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// SendOption changes one send.
type SendOption func(*protocol.Message)

// WithClientMsgID sets the idempotency key (1 to 64 bytes of printable ASCII), which is
// a random UUID otherwise.
func WithClientMsgID(id string) SendOption {
	return func(m *protocol.Message) { m.ClientMsgID = id }
}

// Send puts a chat message to a user into the outbox and returns. Sends leave in the
// order of the calls. A body that is a json.RawMessage is sent byte for byte, any other
// value as encoding/json has it. While the outbox is full, or Run is not at work yet,
// Send waits for ctx.
func (c *Client) Send(ctx context.Context, to string, body any, opts ...SendOption) (*Pending, error) {
	if to == "" {
		return nil, errNoReceiver
	}
	raw, err := encodeBody(body)
	if err != nil {
		return nil, err
	}
	m := protocol.Message{MsgType: protocol.Business, SendUserID: c.opts.User, ReceivedUserID: to,
		BizType: protocol.BizChat, BizOptModule: protocol.OpSend, ClientMsgID: uuid.NewString(), MsgBody: raw}
	for _, o := range opts {
		o(&m)
	}
	e := &entry{id: m.ClientMsgID, frame: m.Append(nil), pending: newPending(m.ClientMsgID), roomy: true}
	select {
	case c.room <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, ErrClosed
	}
	accepted := make(chan error, 1)
	select {
	case c.cmds <- func() { accepted <- c.accept(e) }:
		err = <-accepted
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.done:
		err = ErrClosed
	}
	if err != nil {
		<-c.room
		return nil, err
	}
	return e.pending, nil
}

func encodeBody(body any) (json.RawMessage, error) {
	if raw, ok := body.(json.RawMessage); ok {
		if !json.Valid(raw) {
			return nil, errBadBody
		}
		return raw, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// entry is one send of the outbox.
type entry struct {
	id      string
	frame   []byte // repeated byte for byte, never changed
	pending *Pending
	roomy   bool      // holds a token of Client.room
	tries   int       // times sent without an answer
	due     time.Time // when it is sent again
}

// is reports whether a stored message is this send. Another one may have its id: an echo
// of what was sent under the id before can still come, and this send will be refused.
func (e *entry) is(m *protocol.Message) bool {
	var own protocol.Message
	err := json.Unmarshal(e.frame, &own)
	return err == nil && own.ReceivedUserID == m.ReceivedUserID && bytes.Equal(own.MsgBody, m.MsgBody)
}

// outbox holds the unresolved sends in order. Owned by Run.
type outbox struct {
	entries []*entry // entries[:sent] are on the wire of this connection
	sent    int
	byID    map[string]*entry
	again   *alarm // goes off when the first of entries[:sent] is due

	grown bool // the connection was closed with 1009 before, and nothing was resolved since
}

func newOutbox() outbox { return outbox{byID: map[string]*entry{}} }

func (o *outbox) add(e *entry) {
	o.entries = append(o.entries, e)
	o.byID[e.id] = e
}

func (o *outbox) remove(e *entry) {
	i := slices.Index(o.entries, e) // acknowledged in order, as a rule: it is the first
	if i < o.sent {
		o.sent--
	}
	if i == 0 {
		o.entries[0] = nil
		o.entries = o.entries[1:]
	} else {
		o.entries = slices.Delete(o.entries, i, i+1)
	}
	delete(o.byID, e.id)
}

func (o *outbox) disconnected() {
	o.sent = 0
	o.again.off()
	for _, e := range o.entries {
		e.tries = 0
	}
}

// failAll resolves every send but keeps it for the final State.
func (o *outbox) failAll(err error) {
	o.again.off()
	for _, e := range o.entries {
		if e.pending.err == nil {
			e.pending.err = err
			close(e.pending.done)
		}
	}
}

func (c *Client) accept(e *entry) error {
	switch {
	case c.stop != nil:
		return ErrClosed
	case c.out.byID[e.id] != nil, c.queue.tells(e.id):
		return errIDInUse
	case len(e.frame) > c.link.maxFrame:
		return ErrTooLarge
	}
	c.out.add(e)
	c.pump()
	return nil
}

// pump puts sends on the wire, in order, while the window has room.
func (c *Client) pump() {
	o := &c.out
	if c.link.phase != live || c.in.baseline() {
		return
	}
	for o.sent < min(len(o.entries), window) {
		e := o.entries[o.sent]
		if len(e.frame) > c.link.maxFrame { // a gateway with a smaller limit than the last one
			c.refuse(e, ErrTooLarge)
			continue
		}
		o.sent++
		c.transmit(e)
	}
	if o.sent > 0 && !o.again.on() {
		o.again = c.after(time.Until(o.firstDue()), c.sendAgain)
	}
}

func (c *Client) transmit(e *entry) {
	c.link.conn.write(e.frame)
	e.due = time.Now().Add(min(c.opts.AckTimeout<<min(e.tries, 16), longestAck))
	e.tries++
}

func (o *outbox) firstDue() time.Time {
	due := o.entries[0].due
	for _, e := range o.entries[1:o.sent] {
		if e.due.Before(due) {
			due = e.due
		}
	}
	return due
}

// sendAgain repeats, from the first send that is due on, everything that is on the wire:
// what was sent behind it must not overtake it.
func (c *Client) sendAgain() {
	o := &c.out
	now := time.Now()
	first := slices.IndexFunc(o.entries[:o.sent], func(e *entry) bool { return !e.due.After(now) })
	if first >= 0 && len(c.link.conn.unwritten) == 0 { // else the gateway is not reading: it has them all before it
		for _, e := range o.entries[first:o.sent] {
			c.transmit(e)
		}
	}
	if o.sent > 0 {
		o.again = c.after(max(time.Until(o.firstDue()), time.Second), c.sendAgain)
	}
}

// settle resolves the send that a stored message is the echo of, if it is one.
func (c *Client) settle(m *protocol.Message) {
	e := c.out.byID[m.ClientMsgID]
	if e == nil || m.SendUserID != c.link.self || !e.is(m) {
		return
	}
	res := Result{ConvID: m.ConvID, Seq: m.Seq, TS: time.UnixMilli(m.TS)}
	e.pending.res = res
	c.resolved(e)
	c.queue.resolve(Stored{ClientMsgID: e.id, Result: res}, e)
}

// refused deals with a refusal of a send: final, or to be repeated later.
func (c *Client) refused(m *protocol.Message) {
	e := c.out.byID[m.ClientMsgID]
	switch {
	case e == nil:
		if m.ClientMsgID == "" && m.ReqID == "" {
			c.opts.Log.Warn("refusal of an unknown frame", "code", m.Code, "reason", m.Reason)
		}
	case protocol.Permanent(m.Code):
		c.refuse(e, &RefusedError{Code: m.Code, Reason: m.Reason})
	case m.Code < 3000:
		wait := time.Duration(m.RetryAfterMs) * time.Millisecond
		e.due = time.Now().Add(wait + randomBelow(wait/4))
		if o := &c.out; o.sent > 0 {
			o.again.off()
			o.again = c.after(time.Until(o.firstDue()), c.sendAgain)
		}
	}
}

func (c *Client) refuse(e *entry, err error) {
	e.pending.err = err
	c.resolved(e)
	c.queue.resolve(Refused{ClientMsgID: e.id, Err: err}, e)
}

func (c *Client) resolved(e *entry) {
	c.out.remove(e)
	c.out.grown = false
	close(e.pending.done)
	if e.roomy {
		<-c.room
	}
	if c.out.sent == 0 {
		c.out.again.off()
	}
	c.pump()
}

// outgrown deals with close code 1009: what is larger than maxFrame will never pass. When
// nothing is, and it happens again, the largest send on the wire is given up.
func (c *Client) outgrown() {
	o := &c.out
	var tooLarge []*entry
	for _, e := range o.entries {
		if len(e.frame) > c.link.maxFrame {
			tooLarge = append(tooLarge, e)
		}
	}
	if len(tooLarge) == 0 && o.grown && o.sent > 0 {
		tooLarge = append(tooLarge, slices.MaxFunc(o.entries[:o.sent], func(a, b *entry) int { return len(a.frame) - len(b.frame) }))
	}
	c.link.phase = offline // nothing may be pumped on this connection
	for _, e := range tooLarge {
		c.refuse(e, ErrTooLarge)
	}
	o.grown = len(tooLarge) == 0
}
