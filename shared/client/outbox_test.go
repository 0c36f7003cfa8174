package client

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/protocol"
)

func TestSendIsStored(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", json.RawMessage(`{"text":"<hi>",  "n":1}`))
		m, raw := p.recv()
		if !strings.Contains(raw, `"msgBody":{"text":"<hi>",  "n":1}`) {
			t.Errorf("body is not sent byte for byte: %s", raw)
		}
		if m.ReceivedUserID != "peer" || m.BizType != protocol.BizChat || m.BizOptModule != protocol.OpSend || m.ClientMsgID != own.ClientMsgID {
			t.Errorf("frame %s", raw)
		}
		p.send(echo(m, "a", 1))
		res, err := resolved(r, own)
		if err != nil || res.ConvID != "a" || res.Seq != 1 || res.TS.UnixMilli() != 1 {
			t.Errorf("result %+v %v", res, err)
		}
		if s := event[Stored](r); s.ClientMsgID != own.ClientMsgID || s.Result != res {
			t.Errorf("event %+v", s)
		}
		if msg := event[Message](r); !msg.Own || msg.From != "me" || msg.To != "peer" {
			t.Errorf("message %+v", msg)
		}
	})
}

// Somebody else's message under the same clientMsgId is not the ack.
func TestForeignClientMsgIDIsNoAck(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", 1, WithClientMsgID("a-1"))
		p.recv()
		p.send(chat("a", 1)) // from peer, clientMsgId a-1
		messages(r, "a/1")
		select {
		case <-own.Done():
			t.Error("resolved by a foreign message")
		default:
		}
	})
}

func TestUnansweredIsSentAgainByteForByte(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		first, second := send(r, "peer", "one"), send(r, "peer", "two")
		_, raw1 := p.recv()
		m2, raw2 := p.recv()
		began := time.Now()
		_, again := p.recv()
		if again != raw1 {
			t.Errorf("sent again:\n%s\nfirst:\n%s", again, raw1)
		}
		if d := time.Since(began); d < DefaultAckTimeout || d > DefaultAckTimeout+time.Second {
			t.Errorf("sent again after %v, want %v", d, DefaultAckTimeout)
		}
		m1 := first.ClientMsgID
		if _, again = p.recv(); again != raw2 {
			t.Errorf("what was behind it is not sent again behind it: %s", again)
		}
		p.send(echo(m2, "b", 1))
		if _, err := resolved(r, second); err != nil {
			t.Error(err)
		}
		began = time.Now()
		m, again := p.recv()
		if again != raw1 || m.ClientMsgID != m1 {
			t.Errorf("third time: %s", again)
		}
		if d := time.Since(began); d < 2*DefaultAckTimeout {
			t.Errorf("the wait did not double: %v", d)
		}
		p.send(echo(m, "a", 1))
		if _, err := resolved(r, first); err != nil {
			t.Error(err)
		}
		if n := len(p.frames); n != 0 {
			t.Errorf("%d more frames", n)
		}
	})
}

func TestOutboxIsReplayedInOrder(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		var sent []string
		var pending []*Pending
		for i := range 5 {
			pending = append(pending, send(r, "peer", i))
		}
		for i := range 5 {
			m, raw := p.recv()
			if i == 1 { // one in the middle is acknowledged
				p.send(echo(m, "a", 1))
				event[Stored](r)
				event[Message](r)
				continue
			}
			sent = append(sent, raw)
		}
		p.close(protocol.CloseUplinkStalled)
		pending = append(pending, send(r, "peer", 5)) // while offline or not: behind the rest
		if d := event[Disconnected](r); d.Code != protocol.CloseUplinkStalled || d.Final {
			t.Errorf("disconnected %+v", d)
		}
		p, req := r.g.login(true, "")
		if req.Resume != "t0" {
			t.Errorf("resume %q, want t0", req.Resume)
		}
		event[Connected](r)
		var got []string
		for i := range 5 {
			m, raw := p.recv()
			got = append(got, raw)
			p.send(echo(m, "a", int64(2+i)))
		}
		if !slices.Equal(got[:4], sent) {
			t.Errorf("replayed\n%q\nwant\n%q", got, sent)
		}
		for _, pd := range pending {
			if _, err := resolved(r, pd); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		bad, good := send(r, "peer", "bad"), send(r, "peer", "good")
		mbad, _ := p.recv()
		mgood, raw := p.recv()
		p.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: mbad.ClientMsgID, Code: protocol.CodeBodyTooLarge, Reason: "why"})
		var no *RefusedError
		if _, err := resolved(r, bad); !errors.As(err, &no) || no.Code != protocol.CodeBodyTooLarge || no.Reason != "why" {
			t.Errorf("permanent: %v", err)
		}
		if ev := event[Refused](r); ev.ClientMsgID != bad.ClientMsgID {
			t.Errorf("event %+v", ev)
		}
		began := time.Now()
		p.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: mgood.ClientMsgID, Code: 2777, RetryAfterMs: 3000})
		_, again := p.recv()
		if d := time.Since(began); again != raw || d < 3*time.Second || d > 4*time.Second {
			t.Errorf("temporary: %q after %v", again, d)
		}
		p.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: mgood.ClientMsgID, Code: 4321}) // unknown thousand: ignored
		p.send(echo(mgood, "a", 1))
		if _, err := resolved(r, good); err != nil {
			t.Error(err)
		}
		p.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: mgood.ClientMsgID, Code: protocol.CodeMalformed}) // late: ignored
		event[Stored](r)
		event[Message](r)
		quiet(r, time.Minute)
	})
}

func TestEchoInAPageIsAnAck(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", "x")
		m, _ := p.recv()
		p.send(chat("a", 2))
		q := p.query(protocol.OpHistory, &protocol.HistoryRequest{})
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{echo(m, "a", 1), chat("a", 2)}})
		if res, err := resolved(r, own); err != nil || res.Seq != 1 {
			t.Errorf("%+v %v", res, err)
		}
	})
}

// An echo of what was stored under the id before comes again, while another message under
// that id waits for its refusal.
func TestEchoOfAnotherBodyIsNoAck(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		first := send(r, "peer", "x", WithClientMsgID("a-1"))
		m, _ := p.recv()
		p.send(echo(m, "a", 1))
		if _, err := resolved(r, first); err != nil {
			t.Fatal(err)
		}
		event[Stored](r)
		messages(r, "a/1")
		second := send(r, "peer", "y", WithClientMsgID("a-1"))
		p.recv()
		third := send(r, "other", "x", WithClientMsgID("a-2"))
		p.recv()
		p.send(echo(m, "a", 1))
		m.ClientMsgID = "a-2" // the same body to somebody else
		p.send(echo(m, "a", 2))
		messages(r, "a/2")
		for _, own := range []*Pending{second, third} {
			select {
			case <-own.Done():
				t.Errorf("%s was resolved by another message", own.ClientMsgID)
			default:
			}
		}
		p.send(protocol.Message{MsgType: protocol.Business, ClientMsgID: "a-1", Code: protocol.CodeClientMsgReused})
		var no *RefusedError
		if _, err := resolved(r, second); !errors.As(err, &no) || no.Code != protocol.CodeClientMsgReused {
			t.Errorf("resolved with %v", err)
		}
	})
}

func TestLargerThanMaxFrame(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		if _, err := r.c.Send(context.Background(), "peer", strings.Repeat("x", protocol.MaxFrame)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("send: %v, want ErrTooLarge", err)
		}
		large, small := send(r, "peer", strings.Repeat("x", 5000)), send(r, "peer", "s")
		p.recv()
		p.recv()
		// An edge whose limit is smaller than it said: the second close gives up the largest.
		p.close(closeTooBig)
		event[Disconnected](r)
		p, _ = r.g.login(true, "")
		event[Connected](r)
		p.recv()
		p.recv()
		p.close(closeTooBig)
		if _, err := resolved(r, large); !errors.Is(err, ErrTooLarge) {
			t.Errorf("large: %v, want ErrTooLarge", err)
		}
		event[Refused](r)
		event[Disconnected](r)
		p, _ = r.g.login(true, "")
		event[Connected](r)
		m, _ := p.recv()
		p.send(echo(m, "a", 1))
		if _, err := resolved(r, small); err != nil {
			t.Errorf("small: %v", err)
		}
	})
}

// A gateway that takes less than the last one: what no longer passes fails, the rest goes on.
func TestMaxFrameShrinks(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		large, small := send(r, "peer", strings.Repeat("x", 5000)), send(r, "peer", "s")
		p.recv()
		p.recv()
		p.close(1001)
		event[Disconnected](r)
		p = r.g.next()
		p.loginFrame()
		p.send(protocol.Message{MsgType: protocol.Login, MsgBody: mustJSON(protocol.LoginReply{UserID: "me", MaxFrame: 1000, Resumed: true})})
		if _, err := resolved(r, large); !errors.Is(err, ErrTooLarge) {
			t.Errorf("large: %v", err)
		}
		if m, _ := p.recv(); m.ClientMsgID != small.ClientMsgID {
			t.Errorf("got %+v, want the small one", m)
		}
	})
}

func TestWindow(t *testing.T) {
	start(t, Options{OutboxLimit: 2 * window}, func(r *rig) {
		p := ready(r)
		for i := range 2 * window {
			send(r, "peer", i)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := r.c.Send(ctx, "peer", "one too many"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("send into a full outbox: %v", err)
		}
		if n := len(p.frames); n != window {
			t.Errorf("%d sends on the wire, want %d", n, window)
		}
		for i := range 2 * window {
			m, _ := p.recv()
			if got := string(m.MsgBody); got != string(mustJSON(i)) {
				t.Fatalf("send %d is %s", i, got)
			}
			p.send(echo(m, "a", int64(i+1)))
			event[Stored](r)
			event[Message](r)
		}
	})
}

func TestOutboxIsPartOfTheState(t *testing.T) {
	var st State
	var raw string
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", json.RawMessage(`{"text":"<kept> & \u2028",  "n":1}`)) // as encoding/json would not write it
		_, raw = p.recv()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if _, err := resolved(r, own); !errors.Is(err, ErrClosed) {
			t.Errorf("at the end: %v, want ErrClosed", err)
		}
		st = r.c.State()
		if _, err := r.c.Send(context.Background(), "peer", "late"); !errors.Is(err, ErrClosed) {
			t.Errorf("send after the end: %v", err)
		}
		if err := r.c.Run(context.Background()); !errors.Is(err, ErrRunning) {
			t.Errorf("second Run: %v", err)
		}
	})
	b, _ := json.Marshal(st)
	var back State
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	start(t, Options{State: &back}, func(r *rig) {
		p, _ := r.g.login(true, "")
		event[Connected](r)
		m, again := p.recv()
		if again != raw {
			t.Errorf("after a restart %s, want %s", again, raw)
		}
		p.send(echo(m, "a", 1))
		if ev := event[Stored](r); ev.ClientMsgID != st.Outbox[0].ClientMsgID {
			t.Errorf("event %+v", ev)
		}
	})
}

// A state that an earlier version wrote has the frame as an object.
func TestOlderState(t *testing.T) {
	var st State
	err := json.Unmarshal([]byte(`{"cursors":{},"outbox":[{"clientMsgId":"a-1","frame":{"msgType":3,"x":"y"}},{"clientMsgId":"a-2","frame":"eyJ9"}]}`), &st)
	if err != nil || len(st.Outbox) != 2 || string(st.Outbox[0].Frame) != `{"msgType":3,"x":"y"}` || string(st.Outbox[1].Frame) != `{"}` {
		t.Errorf("%+v, %v", st, err)
	}
}

// A client is stopped when it knows that a send is stored and nobody was told: the next
// one tells.
func TestUntoldSendIsPartOfTheState(t *testing.T) {
	var st State
	var raw string
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		own := send(r, "peer", "stored")
		m, first := p.recv()
		raw = first
		p.send(echo(m, "a", 1))
		if _, err := resolved(r, own); err != nil {
			t.Error(err)
		}
		if _, err := r.c.Send(context.Background(), "peer", "stored", WithClientMsgID(own.ClientMsgID)); !errors.Is(err, errIDInUse) {
			t.Errorf("the same id while its Stored waits: %v", err)
		}
		if err := r.stop(); err != nil { // with Stored and Message unread
			t.Error(err)
		}
		st = r.c.State()
	})
	if len(st.Outbox) != 1 || len(st.Cursors) != 0 {
		t.Fatalf("state %+v", st)
	}
	st.Outbox = append(st.Outbox, st.Outbox[0]) // of a program that kept it itself as well
	start(t, Options{State: &st}, func(r *rig) {
		p, _ := r.g.login(true, "")
		event[Connected](r)
		m, again := p.recv()
		if again != raw {
			t.Errorf("after a restart %s, want %s", again, raw)
		}
		p.send(echo(m, "a", 1))
		event[Stored](r)
		messages(r, "a/1")
		if left := r.c.State().Outbox; len(left) != 0 {
			t.Errorf("outbox %v after everybody was told", left)
		}
	})
}

func TestBadSends(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		ready(r)
		ctx := context.Background()
		for name, f := range map[string]func() (*Pending, error){
			"no receiver": func() (*Pending, error) { return r.c.Send(ctx, "", 1) },
			"bad JSON":    func() (*Pending, error) { return r.c.Send(ctx, "p", json.RawMessage(`{`)) },
			"no JSON":     func() (*Pending, error) { return r.c.Send(ctx, "p", func() {}) },
		} {
			if _, err := f(); err == nil {
				t.Errorf("%s was accepted", name)
			}
		}
		send(r, "p", 1, WithClientMsgID("x"))
		if _, err := r.c.Send(ctx, "p", 1, WithClientMsgID("x")); !errors.Is(err, errIDInUse) {
			t.Errorf("same id twice: %v", err)
		}
	})
}

func TestRequests(t *testing.T) {
	start(t, Options{}, func(r *rig) {
		p := ready(r)
		type out struct {
			page protocol.HistoryReply
			err  error
		}
		got := make(chan out, 1)
		ask := func(ctx context.Context) {
			page, err := r.c.History(ctx, "peer", protocol.HistoryRequest{Limit: 3})
			got <- out{page, err}
		}
		go ask(context.Background())
		var req protocol.HistoryRequest
		q := p.query(protocol.OpHistory, &req)
		if q.ReceivedUserID != "peer" || req.Limit != 3 {
			t.Errorf("asked %+v %+v", q, req)
		}
		p.close(protocol.CloseNotAttached) // asked again on the next connection
		event[Disconnected](r)
		p, _ = r.g.login(true, "")
		event[Connected](r)
		if again := p.query(protocol.OpHistory, &req); again.ReqID != q.ReqID {
			t.Errorf("asked again as %s, want %s", again.ReqID, q.ReqID)
		}
		p.reply(q, protocol.HistoryReply{ConvID: "a", Messages: []protocol.Message{chat("a", 4)}})
		if o := <-got; o.err != nil || len(o.page.Messages) != 1 {
			t.Errorf("page %+v %v", o.page, o.err)
		}
		p.reply(q, protocol.HistoryReply{}) // twice: ignored

		go ask(context.Background())
		q = p.query(protocol.OpHistory, &req)
		p.send(protocol.Message{MsgType: protocol.Business, ReqID: q.ReqID, Code: protocol.CodeForbidden})
		var no *RefusedError
		if o := <-got; !errors.As(o.err, &no) || no.Code != protocol.CodeForbidden {
			t.Errorf("refused: %v", o.err)
		}

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go ask(ctx)
		q = p.query(protocol.OpHistory, &req)
		if o := <-got; !errors.Is(o.err, context.DeadlineExceeded) {
			t.Errorf("timeout: %v", o.err)
		}
		p.reply(q, protocol.HistoryReply{}) // late: ignored

		go ask(context.Background())
		p.query(protocol.OpHistory, &req)
		_ = r.stop()
		if o := <-got; !errors.Is(o.err, ErrClosed) {
			t.Errorf("at the end: %v", o.err)
		}
	})
}
