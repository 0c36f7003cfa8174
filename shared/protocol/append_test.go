package protocol_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/shared/protocol"
)

func TestAppendIsTheSameObjectAsEncodingJSON(t *testing.T) {
	full := protocol.Message{
		Resume: "e.1.2", MsgType: 3, SendUserID: "a\"b\\", ReceivedUserID: "😀<&>", BizType: 1, BizOptModule: 2,
		ConvID: "d:a:b", Seq: protocol.MaxSeq, TS: 1700000000000, ClientMsgID: "c-1", ReqID: "r\n",
		Code: 1000, Reason: "why", RetryAfterMs: 5, MsgBody: json.RawMessage(` {"x":[1,{"$a.b":"<"}]} `),
	}
	for name, m := range map[string]protocol.Message{"full": full, "least": {MsgType: 1}} {
		got := m.Append(nil)
		var back protocol.Message
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%s: %v in %s", name, err, got)
		}
		m.MsgBody = json.RawMessage(strings.TrimSpace(string(m.MsgBody)))
		if len(m.MsgBody) == 0 {
			m.MsgBody = nil
		}
		if !reflect.DeepEqual(back, m) {
			t.Errorf("%s: %+v, want %+v", name, back, m)
		}
	}
	if got := string(full.Append(nil)); !strings.HasPrefix(got, `{"resume":"e.1.2","msgType":3,`) {
		t.Errorf("resume is not the first member: %s", got)
	}
	if got := string((&protocol.Message{MsgType: 1}).Append(nil)); got != `{"msgType":1}` {
		t.Errorf("least = %s", got)
	}
}

func TestReconnectTable(t *testing.T) {
	for _, c := range []struct {
		code            int
		again, newToken bool
	}{
		{1000, true, false}, {1001, true, false}, {1002, false, false}, {1003, false, false}, {1006, true, false},
		{1007, false, false}, {1009, true, false}, {1011, true, false}, {1015, true, false}, {4000, true, false},
		{4401, true, true}, {4408, true, false}, {4499, true, false}, {4500, false, false}, {4501, false, false},
		{4999, false, false}, {3999, true, false},
	} {
		if again, newToken := protocol.Reconnect(c.code); again != c.again || newToken != c.newToken {
			t.Errorf("Reconnect(%d) = %v, %v", c.code, again, newToken)
		}
	}
}
