package messaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

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
