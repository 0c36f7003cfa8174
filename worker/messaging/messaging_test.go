package messaging

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

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
