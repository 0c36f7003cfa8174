package messaging

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
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
