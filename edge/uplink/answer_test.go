package uplink

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// What nats-server 2.15 answers, and what another version might.
func TestAnswer(t *testing.T) {
	for text, want := range map[string]struct {
		seq   uint64
		cause retry
	}{
		`{"stream":"UP_0", "seq":514904400548855808}`:                           {514904400548855808, stored},
		`{"stream":"UP_0","seq":1}`:                                             {1, stored},
		`{"stream":"UP_0","domain":"hub", "seq":9223372034707292160}`:           {9223372034707292160, stored},
		`{"stream":"UP_0","domain":"hub","seq":7,"duplicate":true}`:             {7, stored},
		`{"stream":"UP_0", "duplicate":true, "seq":  12 }`:                      {12, stored},
		`{"seq":12,"stream":"UP_0"}`:                                            {12, stored}, // not the fast path
		` {"stream" : "UP_0", "seq" : 12}`:                                      {12, stored}, // nor this
		`{"stream":"UP_0"}`:                                                     {0, stored},
		`{"error":{"code":503,"err_code":10077,"description":"maximum bytes"}}`: {0, retryFull},
		`{"stream":"UP_0","error":{"err_code":10077},"seq":0}`:                  {0, retryFull},
		`{"stream":"UP_0","error":{"code":400,"err_code":1,"description":"x"}}`: {0, retryOther},
		`{"type":"io.nats.jetstream.api.v1.pub_ack","stream":"UP_0","seq":3}`:   {3, stored},
		`{"stream":"UP_0","seq":-1}`:                                            {0, retryOther},
		// Of other streams: somebody has had JetStream answer to our reply subject.
		`{"stream":"DOWN_4_x_1","seq":3}`:            {0, retryOther},
		`{"stream":"UP_01","seq":3}`:                 {0, retryOther},
		`{"stream":"UP_","seq":3}`:                   {0, retryOther},
		`{"type":"x","stream":"DOWN_4_x_1","seq":3}`: {0, retryOther},
		`hello`: {0, retryOther},
		``:      {0, retryOther},
	} {
		if seq, cause := answer(&nats.Msg{Data: []byte(text)}, "UP_0"); seq != want.seq || cause != want.cause {
			t.Errorf("%s: %d, %d; want %d, %d", text, seq, cause, want.seq, want.cause)
		}
	}
	if _, cause := answer(&nats.Msg{Header: nats.Header{"Status": {"503"}}}, "UP_0"); cause != retryNoResponders {
		t.Errorf("no responders: %d", cause)
	}
	m := &nats.Msg{Data: []byte(`{"stream":"UP_0", "seq":514904400548855808}`)}
	if n := testing.AllocsPerRun(100, func() { _, _ = answer(m, "UP_0") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
