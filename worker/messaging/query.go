package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"runtime/debug"
	"strconv"

	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

// query is a question to the store and where its answer goes.
type query struct {
	from sender
	op   int
	peer string // receivedUserId of the request
	body json.RawMessage
}

// refused is an error whose text and code the client gets.
type refused struct {
	code   int
	reason string
}

func (r refused) Error() string { return r.reason }

func (s *Service) addQuery(p *plan, from sender, m *protocol.Message) {
	switch m.BizOptModule {
	case protocol.OpHistory, protocol.OpConversations, protocol.OpSync:
	default:
		p.refuse(from, protocol.CodeUnknownOp, "unknown bizOptModule of bizType 2")
		return
	}
	if len(m.MsgBody) > s.bodyLimit {
		p.refuse(from, protocol.CodeBodyTooLarge, "msgBody is larger than the limit")
		return
	}
	p.queries = append(p.queries, query{from: from, op: m.BizOptModule, peer: m.ReceivedUserID, body: m.MsgBody})
}

// answer answers a query on a goroutine of its own; a lane never waits for a reader.
func (s *Service) answer(ctx context.Context, q query) {
	if !s.admit(q.from.ev.User) {
		s.m.queriesBusy.Inc()
		s.reply(q.from.refusal(protocol.CodeUnavailable, "too many queries", retryAfter))
		return
	}
	s.running.Go(func() {
		defer s.done(q)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		defer cancel()
		reply, err := s.run(ctx, q)
		var no refused
		switch {
		case errors.As(err, &no):
			s.reply(q.from.refusal(no.code, no.reason, 0))
		case err != nil:
			s.log.Warn("query failed", "op", q.op, "err", err)
			s.reply(q.from.refusal(protocol.CodeUnavailable, "the store is away", retryAfter))
		default:
			m := protocol.Message{MsgType: protocol.Business, BizType: protocol.BizQuery, BizOptModule: q.op,
				ReqID: q.from.reqID, MsgBody: reply}
			s.reply(Frame{To: q.from.ev.User, Conn: q.from.ev.Conn, Data: m.Append(nil)})
		}
	})
}

// admit takes a place for a query of user, if there is one.
func (s *Service) admit(user userid.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queries == maxQueries || s.asking[user] == maxQueriesPerUser {
		return false
	}
	s.queries++
	s.asking[user]++
	return true
}

// done gives the place back. A query that panics is refused for good: its event is
// acknowledged already, and a worker that dies of it would die of every repetition.
func (s *Service) done(q query) {
	if v := recover(); v != nil {
		s.m.queryPanics.Inc()
		s.log.Error("query panicked", "op", q.op, "user", q.from.ev.User, "panic", v, "stack", string(debug.Stack()))
		s.reply(q.from.refusal(protocol.CodeMalformed, "the query cannot be answered", 0))
	}
	user := q.from.ev.User
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries--
	if s.asking[user]--; s.asking[user] == 0 {
		delete(s.asking, user)
	}
}

func (s *Service) run(ctx context.Context, q query) (json.RawMessage, error) {
	switch q.op {
	case protocol.OpHistory:
		return s.history(ctx, q)
	case protocol.OpConversations:
		return s.conversations(ctx, q)
	default:
		return s.sync(ctx, q)
	}
}

func (s *Service) history(ctx context.Context, q query) (json.RawMessage, error) {
	var req protocol.HistoryRequest
	if err := decodeBody(q.body, &req); err != nil {
		return nil, err
	}
	conv, err := conversationOf(q.from.ev.User, req.ConvID, q.peer)
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(req.Limit)
	if err != nil {
		return nil, err
	}
	msgs, more, err := s.store.History(ctx, HistoryQuery{Conv: conv, After: req.AfterSeq, Before: req.BeforeSeq,
		Limit: limit, MaxBytes: protocol.MaxPageBytes})
	if err != nil {
		return nil, err
	}
	pg := page{newestFirst: req.AfterSeq == nil}
	if pg.fill(msgs) {
		more = true
	}
	b := append([]byte(`{"convId":`), protocol.AppendString(nil, conv)...)
	return pg.appendTo(b, more), nil
}

// conversationOf is the conversation that a history request names, if it is the user's.
func conversationOf(user userid.ID, conv, peer string) (string, error) {
	if conv != "" {
		if _, ok := peerOf(conv, user); !ok {
			return "", refused{protocol.CodeForbidden, "not a conversation of this user"}
		}
		return conv, nil
	}
	if peer == "" {
		return "", refused{protocol.CodeMissingField, "history needs convId or receivedUserId"}
	}
	id, err := userid.Parse(peer)
	if err != nil {
		return "", refused{protocol.CodeBadReceiver, "receivedUserId: " + err.Error()}
	}
	conv, _ = direct(user, id)
	return conv, nil
}

func (s *Service) conversations(ctx context.Context, q query) (json.RawMessage, error) {
	var req protocol.ConversationsRequest
	if err := decodeBody(q.body, &req); err != nil {
		return nil, err
	}
	limit, err := pageSize(req.Limit)
	if err != nil {
		return nil, err
	}
	convs, next, err := s.store.Conversations(ctx, q.from.ev.User, limit, req.Cursor)
	if err != nil {
		return nil, err
	}
	b := []byte(`{"conversations":[`)
	for i, c := range convs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendConversation(b, c, q.from.ev.User)
	}
	b = strconv.AppendBool(append(b, `],"more":`...), next != "")
	if next != "" {
		b = protocol.AppendString(append(b, `,"cursor":`...), next)
	}
	return append(b, '}'), nil
}

// appendConversation renders one entry of the list, without its last message when the
// page is full.
func appendConversation(b []byte, c Conversation, user userid.ID) []byte {
	b = protocol.AppendString(append(b, `{"convId":`...), c.Conv)
	if peer, ok := peerOf(c.Conv, user); ok {
		b = protocol.AppendString(append(b, `,"peer":`...), peer.Raw())
	}
	b = strconv.AppendInt(append(b, `,"lastSeq":`...), c.Last.Seq, 10)
	if c.Last.Seq > 0 {
		if last := render(c.Last).Append(nil); len(b)+len(last) <= protocol.MaxPageBytes {
			b = append(append(b, `,"last":`...), last...)
		}
	}
	return append(b, '}')
}

// sync reads each of the user's conversations from the client's cursor on, until the
// page is full. It never reads "up to the last seq": what comes in meanwhile is part of
// the answer or of the next one.
func (s *Service) sync(ctx context.Context, q query) (json.RawMessage, error) {
	var req protocol.SyncRequest
	if err := decodeBody(q.body, &req); err != nil {
		return nil, err
	}
	limit, err := pageSize(req.Limit)
	if err != nil {
		return nil, err
	}
	convs, err := s.store.ConversationIDs(ctx, q.from.ev.User)
	if err != nil {
		return nil, err
	}
	var pg page
	more := false
	for _, conv := range convs {
		after := req.Cursors[conv]
		left := limit - len(pg.messages)
		if left == 0 {
			left = 1 // only to know whether there is more
		}
		msgs, rest, err := s.store.History(ctx, HistoryQuery{Conv: conv, After: &after, Limit: left, MaxBytes: protocol.MaxPageBytes})
		if err != nil {
			return nil, err
		}
		if len(pg.messages) == limit {
			more = len(msgs) > 0
		} else {
			more = pg.fill(msgs) || rest
		}
		if more {
			break
		}
	}
	return pg.appendTo([]byte(`{`), more), nil
}

func decodeBody(body json.RawMessage, into any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return refused{protocol.CodeMalformed, "msgBody: " + err.Error()}
	}
	return nil
}

func pageSize(limit int) (int, error) {
	switch {
	case limit < 0:
		return 0, refused{protocol.CodeMalformed, "limit is negative"}
	case limit == 0:
		return protocol.DefaultPage, nil
	}
	return min(limit, protocol.MaxPage), nil
}

// page gathers rendered messages up to protocol.MaxPageBytes.
type page struct {
	newestFirst bool // when it is too much, the oldest are left out
	messages    [][]byte
	bytes       int
}

// fill adds messages, which are in ascending order, and reports whether some had to be
// left out. The first message of a page is always taken.
func (p *page) fill(msgs []StoredMessage) (cut bool) {
	taken := make([][]byte, 0, len(msgs))
	for i := range msgs {
		m := msgs[i]
		if p.newestFirst {
			m = msgs[len(msgs)-1-i]
		}
		b := render(m).Append(nil)
		if p.bytes > 0 && p.bytes+len(b)+1 > protocol.MaxPageBytes {
			cut = true
			break
		}
		p.bytes += len(b) + 1
		taken = append(taken, b)
	}
	if p.newestFirst {
		for i, j := 0, len(taken)-1; i < j; i, j = i+1, j-1 {
			taken[i], taken[j] = taken[j], taken[i]
		}
	}
	p.messages = append(p.messages, taken...)
	return cut
}

// appendTo appends the members messages and more, and the closing brace.
func (p *page) appendTo(b []byte, more bool) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, `"messages":[`...)
	for i, m := range p.messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, m...)
	}
	if more {
		return append(b, `],"more":true}`...)
	}
	return append(b, `],"more":false}`...)
}
