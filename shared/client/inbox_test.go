package client

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/protocol"
)

func TestDuplicatesAreDropped(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		for _, seq := range []int64{1, 2, 2, 1, 3} {
			p.send(chat("a", seq))
		}
		messages(r, "a/1", "a/2", "a/3")
		quiet(r, time.Minute)
	})
}

func TestOutOfOrderIsHeldAndNotAskedFor(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(chat("a", 3))
		p.send(chat("b", 1))
		p.send(chat("a", 2))
		messages(r, "b/1")
		quiet(r, holdFor-time.Millisecond)
		p.send(chat("a", 1))
		messages(r, "a/1", "a/2", "a/3")
		quiet(r, 10*time.Second)
		if n := len(p.frames); n != 0 {
			t.Errorf("client sent %d frames, want none", n)
		}
	})
}

func TestHoleIsRepairedFromHistory(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(chat("a", 1))
		p.send(resumeTo(chat("a", 4), "t4"))
		messages(r, "a/1")
		began := time.Now()
		var req protocol.HistoryRequest
		q := p.query(protocol.OpHistory, &req)
		if d := time.Since(began); d != holdFor {
			t.Errorf("asked after %v, want %v", d, holdFor)
		}
		if req.ConvID != "a" || req.AfterSeq == nil || *req.AfterSeq != 1 {
			t.Errorf("asked for %+v", req)
		}
		if st := r.c.State(); st.Resume == "t4" {
			t.Error("the token was saved while a hole was open")
		}
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 2)}, More: true})
		messages(r, "a/2")
		q = p.query(protocol.OpHistory, &req)
		if *req.AfterSeq != 2 {
			t.Errorf("second page asked after %d, want 2", *req.AfterSeq)
		}
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 3), chat("a", 4), chat("a", 5)}})
		messages(r, "a/3", "a/4", "a/5")
		p.send(chat("a", 5))
		quiet(r, 10*time.Second)
		if st := r.c.State(); st.Resume != "t4" || st.Cursors["a"] != 5 {
			t.Errorf("state %+v, want t4 and a:5", st)
		}
	})
}

func TestRepairIsRepeated(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(chat("a", 2))
		q := p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		p.reply(q, protocol.HistoryReply{ConvID: "a"}) // the store's reader lags
		q = p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		p.send(protocol.Message{MsgType: protocol.Business, ReqID: q.ReqID, Code: protocol.CodeUnavailable, RetryAfterMs: 3000})
		again := p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		if again.ReqID != q.ReqID {
			t.Errorf("repeated under id %s, want %s", again.ReqID, q.ReqID)
		}
		again = p.query(protocol.OpHistory, &protocol.HistoryRequest{}) // its answer is lost: asked again
		p.reply(again, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 1)}})
		messages(r, "a/1", "a/2")
	})
}

func TestTrimmedHistoryIsSaid(t *testing.T) {
	start(t, Options{State: &State{Cursors: map[string]int64{"a": 2}, Resume: "t"}}, func(r *rig) {
		p, _ := r.g.login(true, "")
		event[Connected](r)
		p.send(chat("a", 6))
		p.send(chat("a", 9))
		q := p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 8), chat("a", 9)}})
		if s := event[Skipped](r); s != (Skipped{ConvID: "a", From: 3, To: 5}) {
			t.Errorf("skipped %+v", s)
		}
		messages(r, "a/6")
		if s := event[Skipped](r); s != (Skipped{ConvID: "a", From: 7, To: 7}) {
			t.Errorf("skipped %+v", s)
		}
		messages(r, "a/8", "a/9")
		if got := r.c.State().Cursors["a"]; got != 9 {
			t.Errorf("cursor %d, want 9", got)
		}
	})
}

func TestFreshClientStartsAtTheEnds(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p, req := r.g.login(false, "t0")
		if req.Resume != "" || req.Token != "token-1" {
			t.Errorf("login %+v", req)
		}
		own := send(r, "peer", "hello") // waits for the baseline
		q := p.query(protocol.OpConversations, &protocol.ConversationsRequest{})
		p.send(chat("a", 7)) // in the list already
		p.send(chat("a", 9))
		p.send(chat("b", 5)) // moves to the front of the list while it is read: not in it
		p.reply(q, protocol.ConversationsReply{Conversations: []protocol.Conversation{{ConvID: "a", LastSeq: 7}}, More: true, Cursor: "next"})
		var second protocol.ConversationsRequest
		q = p.query(protocol.OpConversations, &second)
		if second.Cursor != "next" {
			t.Errorf("cursor %q", second.Cursor)
		}
		p.reply(q, protocol.ConversationsReply{Conversations: []protocol.Conversation{{ConvID: "c", LastSeq: 3}}})
		event[Connected](r)
		messages(r, "b/5")
		event[Synced](r)
		p.send(chat("a", 8))
		p.send(chat("c", 4))
		p.send(chat("d", 1))
		messages(r, "a/8", "a/9", "c/4", "d/1")
		m, _ := p.recv()
		p.send(echo(m, "c", 5))
		if res, err := resolved(r, own); err != nil || res.Seq != 5 {
			t.Errorf("own send: %+v %v", res, err)
		}
		event[Stored](r)
		messages(r, "c/5")
		want := map[string]int64{"a": 9, "b": 5, "c": 5, "d": 1}
		if st := r.c.State(); !maps.Equal(st.Cursors, want) || st.Resume != "t0" {
			t.Errorf("state %+v, want %v and t0", st, want)
		}
	})
}

func TestFromStartDeliversAll(t *testing.T) {
	start(t, Options{FromStart: true}, func(r *rig) {
		p, _ := r.g.login(false, "t0")
		event[Connected](r)
		p.send(chat("b", 2)) // live meanwhile: held, and no repair
		var req protocol.SyncRequest
		q := p.query(protocol.OpSync, &req)
		if len(req.Cursors) != 0 {
			t.Errorf("cursors %v, want none", req.Cursors)
		}
		p.reply(q, protocol.SyncReply{Messages: []protocol.Message{chat("a", 1), chat("a", 2), chat("b", 1)}, More: true})
		messages(r, "a/1", "a/2", "b/1", "b/2")
		q = p.query(protocol.OpSync, &req)
		if want := map[string]int64{"a": 2, "b": 2}; !maps.Equal(req.Cursors, want) {
			t.Errorf("cursors %v, want %v", req.Cursors, want)
		}
		if st := r.c.State(); st.Resume != "" {
			t.Errorf("token %q saved before the sync's end", st.Resume)
		}
		p.reply(q, protocol.SyncReply{})
		event[Synced](r)
		if st := r.c.State(); st.Resume != "t0" {
			t.Errorf("token %q, want t0", st.Resume)
		}
	})
}

func TestNotResumedSyncs(t *testing.T) {
	st := State{Cursors: map[string]int64{"a": 5, "b": 1}, Resume: "old"}
	start(t, Options{State: &st}, func(r *rig) {
		p, req := r.g.login(false, "new.0")
		if req.Resume != "old" {
			t.Errorf("resume %q, want old", req.Resume)
		}
		if ev := event[Connected](r); ev.Resumed {
			t.Error("says resumed")
		}
		var sync protocol.SyncRequest
		q := p.query(protocol.OpSync, &sync)
		if !maps.Equal(sync.Cursors, st.Cursors) {
			t.Errorf("cursors %v, want %v", sync.Cursors, st.Cursors)
		}
		p.send(resumeTo(chat("a", 8), "new.1"))
		p.send(chat("a", 6)) // next: delivered at once, and dropped from the page
		messages(r, "a/6")
		p.reply(q, protocol.SyncReply{Messages: []protocol.Message{chat("a", 6), chat("a", 7), chat("c", 1)}})
		messages(r, "a/7", "a/8", "c/1")
		event[Synced](r)
		if st := r.c.State(); st.Resume != "new.1" {
			t.Errorf("token %q, want new.1", st.Resume)
		}
	})
}

func TestSyncIsTakenUpAgainAfterACut(t *testing.T) {
	st := State{Cursors: map[string]int64{"a": 5}, Resume: "old"}
	start(t, Options{State: &st}, func(r *rig) {
		p, _ := r.g.login(false, "new")
		event[Connected](r)
		q := p.query(protocol.OpSync, &protocol.SyncRequest{})
		p.reply(q, protocol.SyncReply{Messages: []protocol.Message{chat("a", 6)}, More: true})
		messages(r, "a/6")
		p.query(protocol.OpSync, &protocol.SyncRequest{})
		p.close(protocol.CloseSlowReader)
		event[Disconnected](r)
		p, req := r.g.login(false, "new")
		if req.Resume != "old" {
			t.Errorf("resume %q: a token of an unfinished sync", req.Resume)
		}
		event[Connected](r)
		var sync protocol.SyncRequest
		q = p.query(protocol.OpSync, &sync)
		if sync.Cursors["a"] != 6 {
			t.Errorf("cursors %v, want a:6", sync.Cursors)
		}
		p.reply(q, protocol.SyncReply{})
		event[Synced](r)
	})
}

func TestNoticeResync(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(chat("a", 1))
		messages(r, "a/1")
		p.send(protocol.Message{MsgType: protocol.Notice, Code: protocol.NoticeResync, Resume: "epoch2.0"})
		if n := event[Notice](r); n.Code != protocol.NoticeResync {
			t.Errorf("notice %+v", n)
		}
		q := p.query(protocol.OpSync, &protocol.SyncRequest{})
		p.send(protocol.Message{MsgType: protocol.Notice, Code: protocol.NoticeResync, Resume: "epoch3.0"}) // lost track once more
		event[Notice](r)
		if tok := r.c.State().Resume; tok != "t0" {
			t.Errorf("token %q saved during the sync", tok)
		}
		p.reply(q, protocol.SyncReply{Messages: []protocol.Message{chat("a", 2)}})
		messages(r, "a/2")
		q = p.query(protocol.OpSync, &protocol.SyncRequest{})
		p.reply(q, protocol.SyncReply{Messages: []protocol.Message{chat("a", 3)}})
		messages(r, "a/3")
		event[Synced](r)
		if tok := r.c.State().Resume; tok != "epoch3.0" {
			t.Errorf("token %q, want epoch3.0", tok)
		}
	})
}

func TestManyCursorsAreSyncedByList(t *testing.T) {
	st := State{Cursors: map[string]int64{"a": 1}, Resume: "old"}
	for i := range 1000 {
		st.Cursors[strings.Repeat("x", 100)+string(rune('A'+i))] = 1
	}
	start(t, Options{State: &st}, func(r *rig) {
		p, _ := r.g.login(false, "new")
		event[Connected](r)
		q := p.query(protocol.OpConversations, &protocol.ConversationsRequest{})
		p.reply(q, protocol.ConversationsReply{Conversations: []protocol.Conversation{{ConvID: "a", LastSeq: 3}, {ConvID: "new", LastSeq: 1}}})
		var h protocol.HistoryRequest
		q = p.query(protocol.OpHistory, &h)
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 2), chat("a", 3)}})
		q = p.query(protocol.OpHistory, &h)
		p.reply(q, protocol.HistoryReply{ConvID: "new", Messages: []protocol.Message{chat("new", 1)}})
		messages(r, "a/2", "a/3", "new/1")
		event[Synced](r)
	})
}

// A hole whose messages are many: what is beyond the bound is not kept, but not forgotten.
func TestHeldMessagesAreBounded(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		for seq := int64(2); seq <= maxHeld+3; seq++ {
			p.send(chat("a", seq))
		}
		q := p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 1)}, More: true})
		for seq := int64(1); seq <= maxHeld+1; seq++ {
			if m := event[Message](r); m.Seq != seq {
				t.Fatalf("got %d, want %d", m.Seq, seq)
			}
		}
		var h protocol.HistoryRequest
		q = p.query(protocol.OpHistory, &h)
		if *h.AfterSeq != maxHeld+1 {
			t.Fatalf("asked after %d, want %d", *h.AfterSeq, maxHeld+1)
		}
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", maxHeld+2), chat("a", maxHeld+3)}})
		for range 2 {
			event[Message](r)
		}
	})
}

// State never claims more than was read from Events, and a client made of it gets the rest.
func TestStateIsWhatWasRead(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(resumeTo(chat("a", 1), "t1"))
		p.send(resumeTo(chat("a", 2), "t2"))
		p.send(resumeTo(chat("b", 1), "t3"))
		messages(r, "a/1")
		st := r.c.State()
		if st.Cursors["a"] != 1 || st.Cursors["b"] != 0 || st.Resume != "t1" {
			t.Errorf("after one message: %+v", st)
		}
		messages(r, "a/2")
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		st = r.c.State()
		if st.Cursors["a"] != 2 || st.Cursors["b"] != 0 || st.Resume != "t2" {
			t.Errorf("at the end: %+v", st)
		}
		b, err := json.Marshal(st)
		var back State
		if err != nil || json.Unmarshal(b, &back) != nil || !maps.Equal(back.Cursors, st.Cursors) || back.Resume != st.Resume {
			t.Errorf("state does not survive JSON: %s %v", b, err)
		}
	})
}

// With the events unread the socket is not read; nothing is lost when reading goes on.
func TestBackPressure(t *testing.T) {
	start(t, Options{EventBuffer: 4}, func(r *rig) {
		p := ready(r)
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			for seq := int64(1); seq <= 100; seq++ {
				p.send(chat("a", seq))
			}
		}()
		time.Sleep(5 * time.Minute) // the bubble's clock; the silence of a socket that is not read is no sign of death
		select {
		case <-wrote:
			t.Error("the client read everything")
		default:
		}
		for seq := int64(1); seq <= 100; seq++ {
			if m := event[Message](r); m.Seq != seq {
				t.Fatalf("got %d, want %d", m.Seq, seq)
			}
		}
		<-wrote
	})
}

// The token of a login reply may stand for frames that are still to be replayed.
func TestTokenOfAResumedLoginIsNotSaved(t *testing.T) {
	start(t, Options{State: &State{Cursors: map[string]int64{"a": 1}, Resume: "old"}}, func(r *rig) {
		p, _ := r.g.login(true, "end-of-replay")
		event[Connected](r)
		p.send(resumeTo(chat("a", 2), "t2"))
		messages(r, "a/2")
		if tok := r.c.State().Resume; tok != "t2" {
			t.Errorf("token %q, want t2", tok)
		}
		p.close(1001)
		event[Disconnected](r)
		if _, req := r.g.login(true, "end-of-replay"); req.Resume != "t2" {
			t.Errorf("resumes with %q, want t2", req.Resume)
		}
		if ev := event[Connected](r); !ev.Resumed {
			t.Errorf("%+v", ev)
		}
		if tok := r.c.State().Resume; tok != "t2" {
			t.Errorf("token %q after the login, want t2", tok)
		}
	})
}

// A frame of a service moves the position as every other, and no cursor.
func TestPushedByAService(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		p.send(protocol.Message{Resume: "t1", MsgType: protocol.Business, BizType: 1000, BizOptModule: 2, MsgBody: json.RawMessage(`"news"`)})
		if ev := event[Pushed](r); ev.BizType != 1000 || ev.BizOp != 2 || string(ev.Body) != `"news"` {
			t.Errorf("got %+v", ev)
		}
		if st := r.c.State(); st.Resume != "t1" || len(st.Cursors) != 0 {
			t.Errorf("state %+v", st)
		}
	})
}
