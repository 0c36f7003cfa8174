package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

// memory is a Store that keeps the contract of seam.go in maps.
type memory struct {
	mu       sync.Mutex
	err      error  // what every call returns, if set
	refuses  string // the clientMsgId that Append refuses
	slow     int    // if set, Append takes no more new messages than this in time
	convs    map[string][]StoredMessage
	members  map[userid.ID][]string
	byCID    map[string]StoredMessage
	sessions map[string]SessionEvent
	hold     chan struct{} // if set, History waits until it is closed
	panics   bool          // History panics
}

func newMemory() *memory {
	return &memory{convs: map[string][]StoredMessage{}, members: map[userid.ID][]string{},
		byCID: map[string]StoredMessage{}, sessions: map[string]SessionEvent{}}
}

func (s *memory) Append(ctx context.Context, msgs []NewMessage) ([]Appended, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.slow > 0 && len(msgs) > s.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := make([]Appended, len(msgs))
	for i, m := range msgs {
		if m.CID == s.refuses {
			out[i] = Appended{Outcome: Refused, Reason: "too deep"}
			continue
		}
		key := m.From.Token() + "/" + m.CID
		if old, ok := s.byCID[key]; ok {
			if old.Conv == m.Conv && string(old.Body) == string(m.Body) {
				out[i] = Appended{Outcome: Known, Seq: old.Seq, TS: old.TS}
			} else {
				out[i] = Appended{Outcome: Reused}
			}
			continue
		}
		st := StoredMessage{Conv: m.Conv, Seq: int64(len(s.convs[m.Conv]) + 1), From: m.From, CID: m.CID, Type: m.Type,
			Body: slices.Clone(m.Body), TS: m.TS}
		if len(s.convs[m.Conv]) == 0 {
			for _, u := range m.Members {
				s.members[u] = append(s.members[u], m.Conv)
			}
		}
		s.convs[m.Conv] = append(s.convs[m.Conv], st)
		s.byCID[key] = st
		out[i] = Appended{Outcome: Stored, Seq: st.Seq, TS: st.TS}
	}
	return out, nil
}

func (s *memory) History(_ context.Context, q HistoryQuery) ([]StoredMessage, bool, error) {
	if s.hold != nil {
		<-s.hold
	}
	if s.panics {
		panic("history is broken")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.convs[q.Conv]
	if q.After != nil {
		from := min(int(*q.After), len(all))
		to := min(from+q.Limit, len(all))
		return all[from:to], to < len(all), s.err
	}
	to := len(all)
	if q.Before != nil {
		to = min(int(*q.Before)-1, len(all))
	}
	from := max(0, to-q.Limit)
	return all[from:to], from > 0, s.err
}

func (s *memory) Conversations(_ context.Context, user userid.ID, limit int, _ string) ([]Conversation, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Conversation
	for _, c := range s.members[user] {
		out = append(out, Conversation{Conv: c, Last: s.convs[c][len(s.convs[c])-1]})
	}
	return out[:min(limit, len(out))], "", s.err
}

func (s *memory) ConversationIDs(_ context.Context, user userid.ID) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[user], s.err
}

func (s *memory) ApplySessions(_ context.Context, events []SessionEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if e.Closed {
			delete(s.sessions, e.Conn)
		} else {
			s.sessions[e.Conn] = e
		}
	}
	return s.err
}

// recorder is a Deliverer that keeps what it is given.
type recorder struct {
	mu      sync.Mutex
	err     error
	frames  []Frame
	replies chan Frame
}

func (r *recorder) Deliver(_ context.Context, frames []Frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, frames...)
	return r.err
}

func (r *recorder) Reply(f Frame) error {
	r.replies <- f
	return nil
}

func (r *recorder) take() []Frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.frames
	r.frames = nil
	return f
}

func setup(t *testing.T) (*Service, *memory, *recorder) {
	t.Helper()
	st, out := newMemory(), &recorder{replies: make(chan Frame, 1000)}
	s := New(st, out, protocol.MaxBody, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	t.Cleanup(s.Wait)
	return s, st, out
}

var ann, bob = userid.MustParse("ann"), userid.MustParse("bob")

func frame(user userid.ID, data string) envelope.Event {
	return envelope.Event{User: user, Type: envelope.Frame, Edge: "e1", Conn: "e1-" + user.Token(), N: 1, Time: time.Now(), Data: []byte(data)}
}

func send(from userid.ID, to, cid, body string) envelope.Event {
	m := protocol.Message{MsgType: 3, BizType: 1, BizOptModule: 1, ReceivedUserID: to, ClientMsgID: cid, MsgBody: json.RawMessage(body)}
	return frame(from, string(m.Append(nil)))
}

func work(t *testing.T, s *Service, batch ...envelope.Event) {
	t.Helper()
	if _, err := s.Work(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, f Frame) protocol.Message {
	t.Helper()
	var m protocol.Message
	if err := json.Unmarshal(f.Data, &m); err != nil {
		t.Fatalf("%v in %s", err, f.Data)
	}
	return m
}

func TestTheEchoIsTheAck(t *testing.T) {
	s, _, out := setup(t)
	work(t, s, send(ann, "bob", "c1", `{"text":"hi"}`), send(bob, "ann", "c1", `"yo"`), send(ann, "ann", "c2", `1`))
	var got []string
	for _, f := range out.take() {
		m := decode(t, f)
		if f.Conn != "" || !strings.HasPrefix(string(f.Data), `{"`) {
			t.Errorf("frame %+v", f)
		}
		got = append(got, fmt.Sprintf("%s<-%s/%s %s#%d %s", f.To, m.SendUserID, m.ReceivedUserID, m.ConvID, m.Seq, m.MsgBody))
	}
	want := []string{
		`ann<-ann/bob d:ann:bob#1 {"text":"hi"}`, `bob<-ann/bob d:ann:bob#1 {"text":"hi"}`,
		`bob<-bob/ann d:ann:bob#2 "yo"`, `ann<-bob/ann d:ann:bob#2 "yo"`,
		`ann<-ann/ann d:ann:ann#1 1`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// [r] A known message is published again to all of its recipients: the worker that
// stored it may have died before it told them.
func TestKnownMessageIsDeliveredAgain(t *testing.T) {
	s, _, out := setup(t)
	out.err = errors.New("jetstream is away")
	if _, err := s.Work(t.Context(), []envelope.Event{send(ann, "bob", "c1", `1`)}); err == nil {
		t.Fatal("Work returned nil although nothing was delivered")
	}
	out.take()
	out.err = nil
	work(t, s, send(ann, "bob", "c1", `1`))
	frames := out.take()
	if len(frames) != 2 || decode(t, frames[0]).Seq != 1 || frames[1].To != bob {
		t.Errorf("after the retry: %+v", frames)
	}
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		data string
		code int
	}{
		"not JSON":            {`hello`, protocol.CodeMalformed},
		"an array":            {`[1]`, protocol.CodeMalformed},
		"field of wrong type": {`{"msgType":"3","clientMsgId":"c9"}`, protocol.CodeMalformed},
		"unknown msgType":     {`{"msgType":9,"clientMsgId":"c9"}`, protocol.CodeUnknownMsgType},
		"unknown bizType":     {`{"msgType":3,"bizType":77,"clientMsgId":"c9"}`, protocol.CodeUnknownBizType},
		"unknown op":          {`{"msgType":3,"bizType":1,"bizOptModule":9,"clientMsgId":"c9"}`, protocol.CodeUnknownOp},
		"unknown query op":    {`{"msgType":3,"bizType":2,"bizOptModule":9,"clientMsgId":"c9"}`, protocol.CodeUnknownOp},
		"no clientMsgId":      {`{"msgType":3,"bizType":1,"bizOptModule":1,"receivedUserId":"bob","msgBody":1}`, protocol.CodeMissingField},
		"no receiver":         {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","msgBody":1}`, protocol.CodeMissingField},
		"no body":             {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","receivedUserId":"bob"}`, protocol.CodeMissingField},
		"foreign sender":      {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","sendUserId":"eve","receivedUserId":"bob","msgBody":1}`, protocol.CodeForeignSender},
		"receiver too long":   {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","receivedUserId":"` + long + `","msgBody":1}`, protocol.CodeBadReceiver},
		"body too large":      {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","receivedUserId":"bob","msgBody":"` + strings.Repeat("x", 64<<10) + `"}`, protocol.CodeBodyTooLarge},
		"body too deep":       {`{"msgType":3,"bizType":1,"bizOptModule":1,"clientMsgId":"c9","receivedUserId":"bob","msgBody":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, protocol.CodeMalformed},
		"huge number":         {`{"msgType":3,"clientMsgId":"c9","bizType":` + strings.Repeat("9", 60000) + `}`, protocol.CodeMalformed},
		"reqId too long":      {`{"msgType":3,"clientMsgId":"c9","reqId":"` + long + `"}`, protocol.CodeBadField},
		"clientMsgId long":    {`{"msgType":3,"clientMsgId":"` + long + `"}`, protocol.CodeBadField},
	} {
		s, st, out := setup(t)
		work(t, s, frame(ann, c.data))
		frames := out.take()
		if len(frames) != 1 || frames[0].Conn != "e1-ann" || frames[0].To != ann {
			t.Errorf("%s: frames %+v", name, frames)
			continue
		}
		m := decode(t, frames[0])
		if m.Code != c.code || m.Reason == "" || len(m.Reason) > maxReason+3 || m.MsgType != protocol.Business {
			t.Errorf("%s: %+v, want code %d", name, m, c.code)
		}
		if strings.Contains(c.data, `"c9"`) && m.ClientMsgID != "c9" {
			t.Errorf("%s: the refusal does not say which message it is about: %+v", name, m)
		}
		if len(st.convs) != 0 {
			t.Errorf("%s: something was stored", name)
		}
	}
}

// Hostile receiver ids are ordinary users: they can be written to, and reach nobody else.
func TestHostileReceivers(t *testing.T) {
	for _, to := range []string{"*", ">", "a.b", "a/b", "x y", "d:ann:bob", "😀"} {
		s, _, out := setup(t)
		work(t, s, send(ann, to, "c1", `1`))
		frames := out.take()
		if len(frames) != 2 || frames[1].To.Raw() != to {
			t.Fatalf("%q: %+v", to, frames)
		}
		if strings.ContainsAny(decode(t, frames[0]).ConvID, "/*> .") {
			t.Errorf("%q: conversation %s", to, decode(t, frames[0]).ConvID)
		}
	}
}

func TestReusedClientMsgID(t *testing.T) {
	s, _, out := setup(t)
	work(t, s, send(ann, "bob", "c1", `1`))
	out.take()
	work(t, s, send(ann, "bob", "c1", `2`), send(ann, "eve", "c1", `1`), send(bob, "ann", "c1", `2`))
	frames := out.take()
	if len(frames) != 4 || decode(t, frames[0]).Code != protocol.CodeClientMsgReused ||
		decode(t, frames[1]).Code != protocol.CodeClientMsgReused || decode(t, frames[2]).Seq != 2 {
		t.Errorf("%+v", frames)
	}
}

func TestWhatTheStoreNeverTakesIsRefusedAndDead(t *testing.T) {
	s, st, out := setup(t)
	st.refuses = "c2"
	dead, err := s.Work(t.Context(), []envelope.Event{send(ann, "bob", "c1", `1`), send(ann, "bob", "c2", `2`), send(ann, "bob", "c3", `3`)})
	if err != nil || len(dead) != 1 || dead[0].Index != 1 || !strings.Contains(dead[0].Reason, "too deep") {
		t.Fatalf("dead %+v, %v", dead, err)
	}
	frames := out.take()
	if len(frames) != 5 {
		t.Fatalf("%d frames", len(frames))
	}
	if m := decode(t, frames[2]); m.Code != protocol.CodeNotStorable || m.ClientMsgID != "c2" || frames[2].Conn == "" {
		t.Errorf("refusal %+v", m)
	}
	if m := decode(t, frames[3]); m.Seq != 2 || m.ClientMsgID != "c3" {
		t.Errorf("the next message %+v", m)
	}
}

func TestStoreAwayAdvisesTheSenderOnce(t *testing.T) {
	s, st, out := setup(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	st.err = errors.New("no primary")
	batch := []envelope.Event{send(ann, "bob", "c1", `1`), send(bob, "ann", "c1", `1`)}
	for range 3 {
		if _, err := s.Work(t.Context(), batch); err == nil {
			t.Fatal("Work returned nil without a store")
		}
	}
	if n := len(out.replies); n != 2 {
		t.Fatalf("%d advices, want one for each sender", n)
	}
	m := decode(t, <-out.replies)
	if m.Code != protocol.CodeUnavailable || m.RetryAfterMs <= 0 || m.ClientMsgID != "c1" {
		t.Errorf("advice %+v", m)
	}
	<-out.replies
	now = now.Add(adviseEvery)
	_, _ = s.Work(t.Context(), batch)
	if n := len(out.replies); n != 2 {
		t.Errorf("%d advices after %v, want 2", n, adviseEvery)
	}
	st.err = nil
	work(t, s, batch...)
	if len(out.take()) != 4 {
		t.Error("not delivered after the store is back")
	}
	now = now.Add(adviseEvery)
	if s.notAdvised(&plan{}); len(s.advised) != 0 {
		t.Errorf("advice is remembered for ever: %v", s.advised)
	}
}

func TestSlowStoreGetsSmallerPortions(t *testing.T) {
	s, st, _ := setup(t)
	s.patience, st.slow = time.Millisecond, 3
	var batch []envelope.Event
	for i := range 40 {
		batch = append(batch, send(ann, "bob", fmt.Sprint("c", i), `1`))
	}
	for tries := 1; ; tries++ {
		if _, err := s.Work(t.Context(), batch); err == nil {
			break
		}
		if tries > 20 {
			t.Fatal("the batch is never committed")
		}
	}
	if n := len(st.convs["d:ann:bob"]); n != 40 {
		t.Errorf("%d messages stored", n)
	}
	st.slow = 0
	for range 12 {
		work(t, s, batch...)
	}
	if s.portion.Load() < 40 {
		t.Errorf("portions stay at %d although the store is fast again", s.portion.Load())
	}
}

func TestStoreThatIsAwayDoesNotShrinkPortions(t *testing.T) {
	s, st, _ := setup(t)
	st.err = errors.New("connection refused")
	_, _ = s.Work(t.Context(), []envelope.Event{send(ann, "bob", "c1", `1`)})
	if s.portion.Load() != maxPortion {
		t.Errorf("portion %d", s.portion.Load())
	}
}

func TestSessionsThatCannotBeStoredAdviseTheSendersToo(t *testing.T) {
	s, st, out := setup(t)
	st.err = errors.New("no primary")
	hello := envelope.Event{User: bob, Type: envelope.Connected, Edge: "e1", Conn: "c1"}
	if _, err := s.Work(t.Context(), []envelope.Event{hello, send(ann, "bob", "c1", `1`)}); err == nil {
		t.Fatal("Work returned nil without a store")
	}
	if len(out.replies) != 1 {
		t.Errorf("%d advices", len(out.replies))
	}
}

func TestSessions(t *testing.T) {
	s, st, _ := setup(t)
	hello := envelope.Event{User: ann, Type: envelope.Connected, Edge: "e1", Conn: "c1", Data: []byte(`{"deviceId":"d","addr":"1.2.3.4:5"}`)}
	bye := envelope.Event{User: ann, Type: envelope.Disconnected, Edge: "e1", Conn: "c1", Reason: envelope.ReasonDrain}
	work(t, s, hello, envelope.Event{User: ann, Type: "im.new"})
	if got := st.sessions["c1"]; got.DeviceID != "d" || got.User != ann || got.Edge != "e1" || got.Addr != "1.2.3.4:5" {
		t.Errorf("session %+v", got)
	}
	work(t, s, bye)
	if len(st.sessions) != 0 {
		t.Errorf("sessions %v", st.sessions)
	}
}

func ask(from userid.ID, op int, peer, body string) envelope.Event {
	m := protocol.Message{MsgType: 3, BizType: 2, BizOptModule: op, ReceivedUserID: peer, ReqID: "r1", MsgBody: json.RawMessage(body)}
	return frame(from, string(m.Append(nil)))
}

func answered[T any](t *testing.T, out *recorder) (protocol.Message, T) {
	t.Helper()
	f := <-out.replies
	m := decode(t, f)
	if f.Conn == "" || m.ReqID != "r1" {
		t.Errorf("reply %+v", f)
	}
	var body T
	if m.Code == 0 {
		if err := json.Unmarshal(m.MsgBody, &body); err != nil {
			t.Fatalf("%v in %s", err, m.MsgBody)
		}
	}
	return m, body
}

func TestHistory(t *testing.T) {
	s, _, out := setup(t)
	for i := range 7 {
		work(t, s, send(ann, "bob", fmt.Sprint("c", i), fmt.Sprint(i)))
	}
	for _, c := range []struct {
		peer, body string
		first, n   int64
		more       bool
	}{
		{"bob", ``, 1, 7, false},
		{"bob", `{"limit":3}`, 5, 3, true},
		{"bob", `{"beforeSeq":5,"limit":3}`, 2, 3, true},
		{"bob", `{"afterSeq":5,"limit":3}`, 6, 2, false},
		{"bob", `{"afterSeq":0,"limit":3}`, 1, 3, true},
		{"", `{"convId":"d:ann:bob","afterSeq":7}`, 0, 0, false},
	} {
		work(t, s, ask(ann, protocol.OpHistory, c.peer, c.body))
		_, got := answered[protocol.HistoryReply](t, out)
		if int64(len(got.Messages)) != c.n || got.More != c.more || got.ConvID != "d:ann:bob" || c.n > 0 && got.Messages[0].Seq != c.first {
			t.Errorf("%s: %+v", c.body, got)
		}
	}
	for body, code := range map[string]int{
		`{"convId":"d:bob:eve"}`: protocol.CodeForbidden, `{"convId":"d:bob:ann"}`: protocol.CodeForbidden,
		`{"convId":"x"}`: protocol.CodeForbidden, `{"convId":7}`: protocol.CodeMalformed, `{"limit":-1,"convId":"d:ann:bob"}`: protocol.CodeMalformed,
		`{}`: protocol.CodeMissingField,
	} {
		work(t, s, ask(ann, protocol.OpHistory, "", body))
		if m, _ := answered[protocol.HistoryReply](t, out); m.Code != code {
			t.Errorf("%s: %+v, want %d", body, m, code)
		}
	}
}

func TestPageIsCutByBytes(t *testing.T) {
	s, _, out := setup(t)
	body := `"` + strings.Repeat("x", 60<<10) + `"`
	for i := range 6 {
		work(t, s, send(ann, "bob", fmt.Sprint("c", i), body))
	}
	work(t, s, ask(ann, protocol.OpHistory, "bob", ``))
	m, got := answered[protocol.HistoryReply](t, out)
	if len(got.Messages) != 4 || !got.More || got.Messages[3].Seq != 6 || len(m.MsgBody) > protocol.MaxPageBytes+100 {
		t.Errorf("newest: %d messages, more %v, %d bytes", len(got.Messages), got.More, len(m.MsgBody))
	}
	work(t, s, ask(ann, protocol.OpHistory, "bob", `{"afterSeq":0}`))
	if _, got := answered[protocol.HistoryReply](t, out); len(got.Messages) != 4 || !got.More || got.Messages[0].Seq != 1 {
		t.Errorf("oldest: %d messages, more %v", len(got.Messages), got.More)
	}
}

func TestSyncUntilNoMore(t *testing.T) {
	s, _, out := setup(t)
	for i := range 5 {
		work(t, s, send(ann, "bob", fmt.Sprint("b", i), `1`), send(ann, "eve", fmt.Sprint("e", i), `1`))
	}
	cursors := map[string]int64{"d:ann:bob": 2}
	total := 0
	for round := 0; ; round++ {
		body, _ := json.Marshal(protocol.SyncRequest{Cursors: cursors, Limit: 3})
		work(t, s, ask(ann, protocol.OpSync, "", string(body)))
		_, got := answered[protocol.SyncReply](t, out)
		for _, m := range got.Messages {
			if m.Seq != cursors[m.ConvID]+1 {
				t.Fatalf("seq %d of %s after %d", m.Seq, m.ConvID, cursors[m.ConvID])
			}
			cursors[m.ConvID] = m.Seq
			total++
		}
		if !got.More {
			break
		}
		if round > 5 {
			t.Fatal("sync does not end")
		}
	}
	if total != 8 {
		t.Errorf("%d messages, want 8", total)
	}
}

func TestConversations(t *testing.T) {
	s, _, out := setup(t)
	work(t, s, send(ann, "bob", "1", `1`), send(ann, "ann", "2", `2`))
	work(t, s, ask(ann, protocol.OpConversations, "", ``))
	_, got := answered[protocol.ConversationsReply](t, out)
	if len(got.Conversations) != 2 || got.Conversations[0].Peer != "bob" || got.Conversations[0].LastSeq != 1 ||
		got.Conversations[1].Peer != "ann" || string(got.Conversations[1].Last.MsgBody) != "2" {
		t.Errorf("%+v", got)
	}
}

func TestQueryWhileTheStoreIsAway(t *testing.T) {
	s, st, out := setup(t)
	st.err = errors.New("no primary")
	work(t, s, ask(ann, protocol.OpHistory, "bob", ``))
	if m, _ := answered[protocol.HistoryReply](t, out); m.Code != protocol.CodeUnavailable || m.RetryAfterMs == 0 {
		t.Errorf("%+v", m)
	}
}

// A list with large last messages is cut in its messages, never in its entries, and
// fits into one NATS message.
func TestConversationListIsBounded(t *testing.T) {
	s, _, out := setup(t)
	for i := range 50 {
		work(t, s, send(ann, fmt.Sprint("u", i), fmt.Sprint(i), `"`+strings.Repeat("<", 60<<10)+`"`))
	}
	work(t, s, ask(ann, protocol.OpConversations, "", `{"limit":200}`))
	m, got := answered[protocol.ConversationsReply](t, out)
	with := 0
	for _, c := range got.Conversations {
		if c.LastSeq != 1 || c.ConvID == "" {
			t.Fatalf("entry %+v", c)
		}
		if c.Last != nil {
			with++
		}
	}
	if len(got.Conversations) != 50 || with != 4 || len(m.MsgBody) > protocol.MaxPageBytes+50*1000 {
		t.Errorf("%d entries, %d with their last message, %d bytes", len(got.Conversations), with, len(m.MsgBody))
	}
}

func TestOneUserCannotTakeAllQueries(t *testing.T) {
	s, st, out := setup(t)
	st.hold = make(chan struct{})
	for range 3 * maxQueriesPerUser {
		work(t, s, ask(bob, protocol.OpHistory, "ann", ``))
	}
	for range 2 * maxQueriesPerUser {
		if m, _ := answered[protocol.HistoryReply](t, out); m.Code != protocol.CodeUnavailable {
			t.Fatalf("%+v", m)
		}
	}
	work(t, s, ask(ann, protocol.OpHistory, "bob", ``))
	close(st.hold)
	for range maxQueriesPerUser + 1 {
		if m, _ := answered[protocol.HistoryReply](t, out); m.Code != 0 {
			t.Errorf("%+v", m)
		}
	}
	s.Wait()
	if s.queries != 0 || len(s.asking) != 0 {
		t.Errorf("places that are not given back: %d, %v", s.queries, s.asking)
	}
}

func TestQueryThatPanicsIsRefused(t *testing.T) {
	s, st, out := setup(t)
	st.panics = true
	work(t, s, ask(ann, protocol.OpHistory, "bob", ``))
	if m, _ := answered[protocol.HistoryReply](t, out); m.Code != protocol.CodeMalformed {
		t.Errorf("%+v", m)
	}
	s.Wait()
	if s.queries != 0 {
		t.Error("its place is not given back")
	}
}

func TestDeeper(t *testing.T) {
	for body, want := range map[string]bool{
		`[[1]]`: false, `[[[1]]]`: true, `{"a":{"b":[]}}`: true, `["[[[[","\"[[["]`: false, `[[],[],[]]`: false, `"x"`: false,
	} {
		if got := deeper([]byte(body), 2); got != want {
			t.Errorf("deeper(%s) = %v", body, got)
		}
	}
}

func TestDirectIDs(t *testing.T) {
	x, y := userid.MustParse("a:b"), userid.MustParse("a")
	c1, m1 := direct(x, y)
	c2, m2 := direct(y, x)
	if c1 != c2 || len(m1) != 2 || m1[0] != x || m2[0] != y {
		t.Errorf("%s %v, %s %v", c1, m1, c2, m2)
	}
	for _, bad := range []string{"", "d:", "d:a", "d:b:a", "d:a:b:c", "g:a:b", "d:a.b:c", "d::a"} {
		if _, _, ok := parseDirect(bad); ok {
			t.Errorf("parseDirect(%q) accepted it", bad)
		}
	}
}
