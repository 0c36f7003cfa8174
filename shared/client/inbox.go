package client

import (
	"encoding/json"
	"time"

	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	// holdFor is how long a message waits for the ones before it, until they are asked for.
	holdFor = time.Second
	// maxHeld bounds the messages that wait behind holes; what comes beyond is asked for
	// later, when the hole is closed.
	maxHeld = 4096
)

// inbox puts the messages of each conversation in order. Owned by Run.
//
// It also decides which resume token is safe: a token stands for everything before it,
// so it is kept only while no conversation has a hole and nothing is being synced.
type inbox struct {
	convs map[string]*conversation
	holes int // conversations with a hole
	held  int // messages that wait, over all conversations

	fresh  bool // no cursor is known: the baseline must be asked for
	sync   *syncing
	latest string // the newest token on this connection
	safe   string // the newest token that stands for what convs say
}

// conversation is the position in one conversation. There is a hole while next <= seen.
type conversation struct {
	id      string
	next    int64                       // the seq that is delivered next
	seen    int64                       // the highest seq that is known to exist
	held    map[int64]*protocol.Message // above next
	repair  *alarm                      // asks for what is missing
	asking  bool                        // a repair is under way
	retries int                         // repairs in a row that brought nothing
}

func newInbox() inbox { return inbox{convs: map[string]*conversation{}} }

// conversation returns the position in a conversation; one that is not known began
// after everything that is known, so its first message is awaited.
func (in *inbox) conversation(id string) *conversation {
	cv := in.convs[id]
	if cv == nil {
		cv = &conversation{id: id, next: 1}
		in.convs[id] = cv
	}
	return cv
}

func (cv *conversation) hole() bool { return cv.next <= cv.seen }

// baseline reports whether the ends of the conversations are not known yet.
func (in *inbox) baseline() bool { return in.fresh }

// firstOfApplications: lower values of bizType belong to the project.
const firstOfApplications = 1000

// business deals with a frame of msgType 3: a refusal, a reply, a stored message, or
// something of a service.
func (c *Client) business(m *protocol.Message) {
	switch {
	case m.ReqID != "" && c.asks.open[m.ReqID] != nil:
		c.replied(m)
	case m.Code != 0:
		c.refused(m)
	case m.ConvID != "" && m.Seq > 0:
		c.settle(m)
		c.ingest(m)
	case m.BizType >= firstOfApplications:
		c.queue.push(Pushed{From: m.SendUserID, BizType: m.BizType, BizOp: m.BizOptModule, Body: m.MsgBody})
	}
}

// ingest delivers a stored message, drops it, or holds it.
func (c *Client) ingest(m *protocol.Message) {
	in := &c.in
	cv := in.conversation(m.ConvID)
	switch {
	case m.Seq < cv.next:
	case m.Seq == cv.next && !in.baseline():
		c.deliver(cv, m)
		c.release(cv)
	default:
		c.hold(cv, m)
	}
}

func (c *Client) deliver(cv *conversation, m *protocol.Message) {
	had := cv.hole()
	cv.next = m.Seq + 1
	if had && !cv.hole() {
		c.in.holes--
	}
	c.queue.push(Message{ConvID: m.ConvID, Seq: m.Seq, From: m.SendUserID, To: m.ReceivedUserID,
		ClientMsgID: m.ClientMsgID, TS: time.UnixMilli(m.TS), BizType: m.BizType, BizOp: m.BizOptModule,
		Body: m.MsgBody, Own: m.SendUserID == c.link.self})
}

// release delivers what was held and is next now, and closes the hole if that was all.
func (c *Client) release(cv *conversation) {
	for {
		m := cv.held[cv.next]
		if m == nil {
			break
		}
		delete(cv.held, cv.next)
		c.in.held--
		c.deliver(cv, m)
	}
	if !cv.hole() {
		cv.repair.off()
		cv.retries = 0
	}
}

// hold keeps a message that came before its time. Beyond maxHeld only the fact that it
// exists is kept.
func (c *Client) hold(cv *conversation, m *protocol.Message) {
	in := &c.in
	if !cv.hole() {
		in.holes++
	}
	if m.Seq > cv.seen {
		cv.seen = m.Seq
	}
	if cv.held[m.Seq] == nil && in.held < maxHeld {
		if cv.held == nil {
			cv.held = map[int64]*protocol.Message{}
		}
		cv.held[m.Seq] = m
		in.held++
	}
	c.armRepair(cv, holdFor)
}

// armRepair asks for what is missing after d, unless that is under way or a sync brings
// it anyway.
func (c *Client) armRepair(cv *conversation, d time.Duration) {
	if c.in.sync == nil && !c.in.fresh && !cv.asking && !cv.repair.on() && c.link.phase == live {
		cv.repair = c.after(d, func() { c.askMissing(cv) })
	}
}

// askMissing pulls the history behind the last delivered message.
func (c *Client) askMissing(cv *conversation) {
	after := cv.next - 1
	body := mustJSON(protocol.HistoryRequest{ConvID: cv.id, AfterSeq: &after, Limit: protocol.MaxPage})
	cv.asking = true
	c.ask(&request{op: protocol.OpHistory, body: body, inner: true, fn: func(m *protocol.Message, err error) {
		cv.asking = false
		var page protocol.HistoryReply
		if err == nil {
			err = json.Unmarshal(m.MsgBody, &page)
		}
		if err != nil {
			c.opts.Log.Warn("repair failed", "conv", cv.id, "err", err)
		}
		c.repaired(cv, after, page)
	}})
}

// repaired takes a page of history that begins behind after.
func (c *Client) repaired(cv *conversation, after int64, page protocol.HistoryReply) {
	c.pulled(cv, after, page.Messages)
	if !cv.hole() {
		return
	}
	if cv.next > after+1 {
		cv.retries = 0
		c.armRepair(cv, 0)
		return
	}
	cv.retries++ // not there yet: a reader of the store may lag behind what was delivered
	c.armRepair(cv, holdFor<<min(cv.retries-1, 5))
}

// pulled ingests messages of one conversation that were read from the store in order,
// all that there are behind after. When the first does not follow after, history no
// longer holds what was between.
func (c *Client) pulled(cv *conversation, after int64, msgs []protocol.Message) {
	if len(msgs) == 0 {
		return
	}
	if first := msgs[0].Seq; first > after+1 {
		for cv.next < first {
			c.skip(cv, cv.lowestHeld(first))
		}
	}
	for i := range msgs {
		if m := &msgs[i]; m.ConvID == cv.id && m.Seq > 0 {
			c.settle(m)
			c.ingest(m)
		}
	}
}

// lowestHeld returns the lowest seq that is held, at most limit.
func (cv *conversation) lowestHeld(limit int64) int64 {
	for seq := range cv.held {
		limit = min(limit, seq)
	}
	return limit
}

// skip goes on at seq to, because what is before it is gone.
func (c *Client) skip(cv *conversation, to int64) {
	c.opts.Log.Warn("history no longer holds messages", "conv", cv.id, "from", cv.next, "to", to-1)
	c.queue.push(Skipped{ConvID: cv.id, From: cv.next, To: to - 1})
	c.jump(cv, to)
	c.release(cv)
}

// jump sets the next seq and forgets what is before it.
func (c *Client) jump(cv *conversation, next int64) {
	had := cv.hole()
	cv.next = next
	for seq := range cv.held {
		if seq < next {
			delete(cv.held, seq)
			c.in.held--
		}
	}
	if had && !cv.hole() {
		c.in.holes--
	}
}

// saveToken makes the latest token the safe one if nothing is missing before it.
func (c *Client) saveToken() {
	in := &c.in
	if in.latest == "" || in.latest == in.safe || in.holes > 0 || in.sync != nil || in.fresh {
		return
	}
	in.safe = in.latest
	c.queue.save(in.safe)
}

// disconnected forgets what was under way; the next login decides how to go on.
func (in *inbox) disconnected() {
	in.latest = ""
	in.sync = nil
	for _, cv := range in.convs {
		cv.repair.off()
		cv.asking = false
	}
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil { // requests are plain structs: they always marshal
		panic(err)
	}
	return b
}
