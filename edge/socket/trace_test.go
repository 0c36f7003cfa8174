package socket

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/shared/envelope"
)

const someTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceParent(t *testing.T) {
	const member = `"traceparent":"` + someTrace + `"`
	for _, frame := range []string{
		`{` + member + `}`, `{` + member + `,"msgType":3}`, `{"msgType":3,"msgBody":{"traceparent":"x"},` + member + `}`,
		" {\n\"msgType\" : 3 ,\t\"traceparent\" :\r \"" + someTrace + "\" }\n", "\t{ \"traceparent\" :\n\"" + someTrace + `", "msgBody":{"text":"\""}}`,
	} {
		if got := traceParent([]byte(frame)); got != someTrace {
			t.Errorf("%s: found %q", frame, got)
		}
	}
	for _, frame := range []string{
		``, ` `, `{`, `}`, `"}`, `{}`, `{"msgType":3}`, `{"a":1,` + member + `,"b":2}`, `[{` + member + `}]`, `{"a":[` + member + `}`, `"traceparent":"` + someTrace + `"}`,
		`{"a":"\",\"traceparent\":\"` + someTrace + `"}`, `{"a":{"b":1,` + member + `}}`, someTrace + `"}`, `[` + member + `]`, `{"msgBody":"{\"traceparent\":\"` + someTrace + `\"}"}`,
		`{"x":"traceparent","y":1}`, `{"traceparent"`, `{"traceparent":`, `{"traceparent":"`, `{"traceparent":"00`, `{"traceparent":7}`,
		`{"traceparent":{"traceparent":"` + someTrace + `"}}`, `{"traceparent":["` + someTrace + `"]}`, `{"traceparent":""}`,
		`{"traceparent":"` + someTrace + `0"}`, `{"traceparent":"` + strings.Repeat("x", 1<<16) + `"}`,
		strings.ToUpper(`{"traceparent":"`) + someTrace + `"}`, `{"traceparent":"` + strings.ToUpper(someTrace) + `"}`,
		`{"traceparent":"` + strings.Replace(someTrace, "4b", `\u0034b`, 1) + `"}`, "{\"traceparent\":\"00-\r\nce-type: x",
	} {
		if got := traceParent([]byte(frame)); got != "" {
			t.Errorf("%.100s: found %q", frame, got)
		}
	}
	plain := []byte(`{"msgType":3,"bizType":1,"msgBody":"` + fill(500) + `"}`)
	zeroAllocs(t, "a frame without traceparent", func() { traceParent(plain) })
}

// FuzzTraceParent: whatever is found is valid, and of a JSON object it is what encoding/json
// finds as well, unless the member is there twice.
func FuzzTraceParent(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(`{"a":` + s + `,"traceparent":"` + someTrace + `"}`))
		f.Add([]byte(`{"traceparent":"` + someTrace + `","a":` + s + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := traceParent(b)
		if got == "" {
			return
		}
		if !envelope.ValidTraceParent(got) {
			t.Fatalf("%q: found %q", b, got)
		}
		var all map[string]json.RawMessage
		if strings.Count(string(b), string(traceKey)) > 1 || json.Unmarshal(b, &all) != nil {
			return
		}
		if want := `"` + got + `"`; string(all["traceparent"]) != want {
			t.Fatalf("%q: found %s, encoding/json says %s", b, want, all["traceparent"])
		}
	})
}

// BenchmarkTraceParent is what a relayed frame costs more for being looked through.
func BenchmarkTraceParent(b *testing.B) {
	for _, c := range []struct {
		name, data string
		want       string
	}{
		{"none-200B", `{"msgType":3,"receivedUserId":"bob","bizType":1,"bizOptModule":1,"clientMsgId":"1f0c2a4e-6f2b-4b0e-9c57-0e7f5a1d9b11","msgBody":{"text":"` + fill(70) + `"}}`, ""},
		{"none-16KiB", `{"msgType":3,"msgBody":{"text":"` + fill(16<<10) + `"}}`, ""},
		{"none-16KiB-of-quotes", `{"msgType":3,"msgBody":[` + strings.Repeat(`"",`, 5461) + `1]}`, ""},
		{"last", `{"msgType":3,"msgBody":{"text":"` + fill(150) + `"},"traceparent":"` + someTrace + `"}`, someTrace},
	} {
		b.Run(c.name, func(b *testing.B) {
			data := []byte(c.data)
			b.ReportAllocs()
			for b.Loop() {
				if traceParent(data) != c.want {
					b.Fatal("wrong")
				}
			}
		})
	}
}
