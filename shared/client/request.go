package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/wirepost/wirepost/shared/protocol"
)

// requestTimeout is how long a reply is awaited before the request is sent again.
const requestTimeout = 10 * time.Second

// request is a question to the gateway's services. They only read, so it is repeated
// freely.
type request struct {
	op    int    // of BizQuery
	to    string // receivedUserId
	body  json.RawMessage
	inner bool // of this client itself: given up when the connection ends

	// fn is called once, by Run, with the reply or an error.
	fn func(*protocol.Message, error)

	id    string
	n     uint64 // order of asking
	again *alarm
}

// requests are the questions without an answer. Owned by Run.
type requests struct {
	prefix string // of this client's request ids
	n      uint64
	open   map[string]*request
}

func newRequests() requests {
	return requests{prefix: uuid.NewString()[:8], open: map[string]*request{}}
}

// ask sends a request now, or when the client is connected.
func (c *Client) ask(r *request) {
	a := &c.asks
	a.n++
	r.n, r.id = a.n, fmt.Sprintf("%s-%d", a.prefix, a.n)
	a.open[r.id] = r
	c.sendRequest(r)
}

func (c *Client) sendRequest(r *request) {
	if c.link.phase != live {
		return
	}
	m := protocol.Message{MsgType: protocol.Business, SendUserID: c.opts.User, ReceivedUserID: r.to,
		BizType: protocol.BizQuery, BizOptModule: r.op, ReqID: r.id, MsgBody: r.body}
	c.link.conn.write(m.Append(nil))
	r.again.off()
	r.again = c.after(requestTimeout, func() { c.sendRequest(r) })
}

// resendRequests sends what was asked before the login, in order.
func (c *Client) resendRequests() {
	var rs []*request
	for _, r := range c.asks.open {
		if !r.again.on() {
			rs = append(rs, r)
		}
	}
	slices.SortFunc(rs, func(a, b *request) int { return int(a.n) - int(b.n) })
	for _, r := range rs {
		c.sendRequest(r)
	}
}

// replied deals with the answer to a request, or with its refusal.
func (c *Client) replied(m *protocol.Message) {
	r := c.asks.open[m.ReqID]
	switch {
	case m.Code == 0:
		c.answered(r, m, nil)
	case protocol.Permanent(m.Code):
		c.answered(r, nil, &RefusedError{Code: m.Code, Reason: m.Reason})
	case m.Code < 3000:
		wait := max(time.Duration(m.RetryAfterMs)*time.Millisecond, 100*time.Millisecond)
		r.again.off()
		r.again = c.after(wait+randomBelow(wait/4), func() { c.sendRequest(r) })
	}
}

func (c *Client) answered(r *request, m *protocol.Message, err error) {
	r.again.off()
	delete(c.asks.open, r.id)
	r.fn(m, err)
}

// disconnected gives up what the client itself asked; the rest is asked again.
func (a *requests) disconnected() {
	for id, r := range a.open {
		r.again.off()
		if r.inner {
			delete(a.open, id)
		}
	}
}

func (a *requests) failAll(err error) {
	for id, r := range a.open {
		r.again.off()
		delete(a.open, id)
		if !r.inner {
			r.fn(nil, err)
		}
	}
}

// History returns a page of a conversation: the one that req.ConvID names, or the direct
// one with peer. Its messages do not appear among the events.
func (c *Client) History(ctx context.Context, peer string, req protocol.HistoryRequest) (protocol.HistoryReply, error) {
	var reply protocol.HistoryReply
	err := c.query(ctx, protocol.OpHistory, peer, req, &reply)
	return reply, err
}

// Conversations returns a page of the user's conversations, latest first.
func (c *Client) Conversations(ctx context.Context, req protocol.ConversationsRequest) (protocol.ConversationsReply, error) {
	var reply protocol.ConversationsReply
	err := c.query(ctx, protocol.OpConversations, "", req, &reply)
	return reply, err
}

// Sync returns a page of what is stored behind the given cursors. The client syncs by
// itself: this is for programs that keep cursors of their own.
func (c *Client) Sync(ctx context.Context, req protocol.SyncRequest) (protocol.SyncReply, error) {
	var reply protocol.SyncReply
	err := c.query(ctx, protocol.OpSync, "", req, &reply)
	return reply, err
}

// query asks, repeats the question after a timeout, a temporary refusal or a reconnect,
// and waits until the reply is there or ctx ends. Errors: *RefusedError, ErrClosed,
// ctx's.
func (c *Client) query(ctx context.Context, op int, to string, req, reply any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	type outcome struct {
		m   *protocol.Message
		err error
	}
	got := make(chan outcome, 1)
	r := &request{op: op, to: to, body: body, fn: func(m *protocol.Message, err error) { got <- outcome{m, err} }}
	select {
	case c.cmds <- func() { c.askOrFail(r) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return ErrClosed
	}
	select {
	case o := <-got:
		if o.err != nil {
			return o.err
		}
		return json.Unmarshal(o.m.MsgBody, reply)
	case <-ctx.Done():
		c.post(func() { c.forget(r) })
		return ctx.Err()
	}
}

func (c *Client) askOrFail(r *request) {
	if c.stop != nil {
		r.fn(nil, ErrClosed)
		return
	}
	c.ask(r)
}

func (c *Client) forget(r *request) {
	r.again.off()
	delete(c.asks.open, r.id)
}
