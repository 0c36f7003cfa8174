package socket

import (
	"encoding/json"
	"strings"
	"testing"
)

var jsonSeeds = []string{
	plainHeartbeat, ` { } `, `[]`, `[1,2,{"a":null}]`, `"\u00e9\\\"\/\b\f\n\r\t"`, `-0.5e+10`, `0`, `-`, `01`, `1.`, `1e`, `.5`, `+1`, `tru`, `true`, `false`, `nullx`,
	`{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `[1,]`, `[,]`, `"\x"`, `"\u12g4"`, "\"\x01\"", `"`, `{"a":1`, `[`, ``, ` `, `{"a":1}}`, `1 2`, "\xff", "\"\xff\"", `{"a":1 "b":2}`, `"\`,
}

func FuzzJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Count(string(b), "[")+strings.Count(string(b), "{") >= maxDepth {
			return
		}
		if got, want := validJSON(b), json.Valid(b); got != want {
			t.Errorf("%q: %v, encoding/json says %v", b, got, want)
		}
	})
}

func TestDepthIsBounded(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if !validJSON(nested(maxDepth)) || validJSON(nested(maxDepth+1)) || validJSON([]byte(strings.Repeat("[", 100000))) {
		t.Error("the depth is not bounded where it is said")
	}
}

// FuzzMsgType: the scan finds what encoding/json finds, or lets the frame through.
func FuzzMsgType(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
		f.Add([]byte(`{"a":` + s + `,"msgType":1}`))
		f.Add([]byte(`{"msgType":` + s + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := msgType(b)
		if n != 1 && n != 2 {
			return
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatalf("%q is taken as msgType %d: %v", b, n, err)
		}
		if len(all["msgType"]) == 0 {
			t.Fatalf("%q has no msgType", b)
		}
	})
}
