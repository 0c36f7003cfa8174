package client

import (
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	// maxCursors is the size in bytes of the cursors of a sync request beyond which the
	// conversations are listed and read one by one instead.
	maxCursors = protocol.MaxBody - 1024
	// syncRetry is the wait after a failed or fruitless step.
	syncRetry = time.Second
)

// syncing is a catch-up that is under way: one request at a time. Live messages that
// are next are delivered meanwhile, others wait in the inbox.
type syncing struct {
	again bool                    // the gateway lost track once more: do it over
	ends  map[string]int64        // baseline or list: last seq of each conversation so far
	todo  []protocol.Conversation // list: conversations still to be read
}

// attached begins the catch-up that a login calls for.
func (c *Client) attached(resumed bool, token string) {
	in := &c.in
	if resumed { // everything since in.safe follows, what is missing before holes too
		for _, cv := range in.convs {
			if cv.hole() {
				c.armRepair(cv, holdFor)
			}
		}
		return // the token of the reply may stand for frames that are still to come
	}
	in.latest = token
	c.beginSync()
}

// resync is the gateway's word that frames may have been missed.
func (c *Client) resync() {
	if s := c.in.sync; s != nil {
		s.again = true
		return
	}
	c.beginSync()
}

func (c *Client) beginSync() {
	in := &c.in
	in.sync = &syncing{}
	for _, cv := range in.convs {
		cv.repair.off()
	}
	if in.fresh {
		in.sync.ends = map[string]int64{}
		c.listConversations("", c.baselineKnown)
		return
	}
	c.syncStep()
}

// syncStep asks for the next page behind the cursors.
func (c *Client) syncStep() {
	cursors := make(map[string]int64, len(c.in.convs))
	for id, cv := range c.in.convs {
		if cv.next > 1 {
			cursors[id] = cv.next - 1
		}
	}
	body := mustJSON(protocol.SyncRequest{Cursors: cursors, Limit: protocol.MaxPage})
	if len(body) > min(maxCursors, c.link.maxFrame-1024) {
		c.syncByList()
		return
	}
	c.askForSync(protocol.OpSync, body, c.syncStep, func(m *protocol.Message) error {
		var page protocol.SyncReply
		if err := json.Unmarshal(m.MsgBody, &page); err != nil {
			return err
		}
		news := c.pulledAll(cursors, page.Messages)
		switch {
		case !page.More:
			c.synced()
		case news:
			c.syncStep()
		default: // only messages that came live meanwhile
			c.laterInSync(c.syncStep)
		}
		return nil
	})
}

// syncByList is for a client whose cursors are too many for one request.
func (c *Client) syncByList() {
	c.in.sync.ends = map[string]int64{}
	c.in.sync.todo = nil
	c.listConversations("", c.readListed)
}

// pulledAll ingests a page over several conversations and reports whether it held
// anything.
func (c *Client) pulledAll(cursors map[string]int64, msgs []protocol.Message) bool {
	for len(msgs) > 0 {
		conv := msgs[0].ConvID
		n := 1
		for n < len(msgs) && msgs[n].ConvID == conv {
			n++
		}
		c.pulled(c.in.conversation(conv), cursors[conv], msgs[:n])
		cursors[conv] = msgs[n-1].Seq
		msgs = msgs[n:]
		if len(msgs) == 0 {
			return true
		}
	}
	return false
}

// askForSync asks one question of the sync under way. A failure repeats step later.
func (c *Client) askForSync(op int, body json.RawMessage, step func(), take func(*protocol.Message) error) {
	s := c.in.sync
	c.ask(&request{op: op, body: body, inner: true, fn: func(m *protocol.Message, err error) {
		if c.in.sync != s {
			return
		}
		var no *RefusedError
		if err == nil {
			err = take(m)
		}
		if op == protocol.OpSync && errors.As(err, &no) { // a worker with a smaller limit
			c.syncByList()
			return
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			c.opts.Log.Warn("sync failed, trying again", "err", err)
			c.laterInSync(step)
		}
	}})
}

func (c *Client) laterInSync(step func()) {
	s := c.in.sync
	c.after(syncRetry, func() {
		if c.in.sync == s {
			step()
		}
	})
}

// listConversations reads the list of conversations to its end into sync.ends and
// sync.todo, then calls known.
func (c *Client) listConversations(cursor string, known func()) {
	body := mustJSON(protocol.ConversationsRequest{Limit: protocol.MaxPage, Cursor: cursor})
	step := func() { c.listConversations(cursor, known) }
	c.askForSync(protocol.OpConversations, body, step, func(m *protocol.Message) error {
		var page protocol.ConversationsReply
		if err := json.Unmarshal(m.MsgBody, &page); err != nil {
			return err
		}
		s := c.in.sync
		for _, cv := range page.Conversations {
			if _, twice := s.ends[cv.ConvID]; !twice {
				s.ends[cv.ConvID] = cv.LastSeq
				s.todo = append(s.todo, cv)
			}
		}
		if page.More && page.Cursor != "" {
			c.listConversations(page.Cursor, known)
		} else {
			known()
		}
		return nil
	})
}

// baselineKnown starts a fresh client at the ends of the conversations.
func (c *Client) baselineKnown() {
	in := &c.in
	in.fresh = false
	c.queue.cursors = map[string]int64{}
	for id, last := range in.sync.ends {
		in.conversation(id)
		c.startBehind(id, last)
	}
	for id, cv := range in.convs { // came live, and moved in the list while it was read
		if _, listed := in.sync.ends[id]; !listed && len(cv.held) > 0 {
			c.startBehind(id, cv.lowestHeld(math.MaxInt64)-1)
		}
	}
	c.synced()
	c.pump() // own sends waited for this
}

// startBehind starts one conversation behind last.
func (c *Client) startBehind(id string, last int64) {
	cv := c.in.conversation(id)
	c.jump(cv, last+1)
	c.queue.cursors[id] = last
	c.release(cv)
}

// readListed reads the listed conversations that have more than this client knows, one
// page at a time.
func (c *Client) readListed() {
	s := c.in.sync
	for len(s.todo) > 0 && s.todo[0].LastSeq < c.in.conversation(s.todo[0].ConvID).next {
		s.todo = s.todo[1:]
	}
	if len(s.todo) == 0 {
		c.synced()
		return
	}
	cv := c.in.conversation(s.todo[0].ConvID)
	after := cv.next - 1
	body := mustJSON(protocol.HistoryRequest{ConvID: cv.id, AfterSeq: &after, Limit: protocol.MaxPage})
	c.askForSync(protocol.OpHistory, body, c.readListed, func(m *protocol.Message) error {
		var page protocol.HistoryReply
		if err := json.Unmarshal(m.MsgBody, &page); err != nil {
			return err
		}
		c.pulled(cv, after, page.Messages)
		if cv.next > after+1 {
			c.readListed()
		} else {
			c.laterInSync(c.readListed)
		}
		return nil
	})
}

// synced ends the sync: tokens count again, and what still has a hole is repaired.
func (c *Client) synced() {
	in := &c.in
	again := in.sync.again
	in.sync = nil
	if again {
		c.beginSync()
		return
	}
	for _, cv := range in.convs {
		if cv.hole() {
			c.armRepair(cv, 0)
		}
	}
	c.queue.push(Synced{})
	c.saveToken()
}
