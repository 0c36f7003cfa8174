package delivery

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestFlight(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		frames int
		steps  func(f *flight)
		over   bool
		n      int
		err    error
	}{
		"all in order":     {2, func(f *flight) { f.ack(0, nil); f.ack(1, nil) }, true, 2, nil},
		"all, backwards":   {2, func(f *flight) { f.ack(1, nil); f.ack(0, nil) }, true, 2, nil},
		"twice":            {2, func(f *flight) { f.ack(0, nil); f.ack(0, nil) }, false, 1, errNoAck},
		"none":             {1, func(*flight) {}, false, 0, errNoAck},
		"hole":             {3, func(f *flight) { f.ack(0, nil); f.ack(2, nil) }, false, 1, errNoAck},
		"refused":          {3, func(f *flight) { f.ack(0, nil); f.ack(1, boom); f.ack(2, nil) }, true, 1, boom},
		"first refusal":    {3, func(f *flight) { f.ack(2, boom); f.ack(0, nil); f.ack(1, nats.ErrNoResponders) }, true, 1, nats.ErrNoResponders},
		"not published":    {3, func(f *flight) { f.end(1, boom); f.ack(0, nil) }, true, 1, boom},
		"nothing went out": {3, func(f *flight) { f.end(0, boom) }, true, 0, boom},
		"foreign index":    {1, func(f *flight) { f.ack(7, nil); f.ack(0, nil) }, true, 1, nil},
		"behind a refusal": {3, func(f *flight) { f.ack(1, boom); f.ack(2, nil) }, false, 0, errNoAck},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlight(c.frames)
			c.steps(f)
			over := false
			select {
			case <-f.done:
				over = true
			default:
			}
			n, err := f.result()
			if over != c.over || n != c.n || !errors.Is(err, c.err) {
				t.Errorf("over %v, %d, %v; want %v, %d, %v", over, n, err, c.over, c.n, c.err)
			}
		})
	}
}

func TestPubAckError(t *testing.T) {
	for name, c := range map[string]struct {
		msg nats.Msg
		ok  bool
	}{
		"stored":        {nats.Msg{Data: []byte(`{"stream":"DOWN_1_a_0","seq":22}`)}, true},
		"in a domain":   {nats.Msg{Data: []byte(`{"stream":"DOWN_1_a_0","domain":"x","seq":22,"duplicate":true}`)}, true},
		"refused":       {nats.Msg{Data: []byte(`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"DOWN_1_a_0","seq":0}`)}, false},
		"not json":      {nats.Msg{Data: []byte(`+OK`)}, false},
		"no sequence":   {nats.Msg{Data: []byte(`{}`)}, false},
		"other order":   {nats.Msg{Data: []byte(`{"seq":22,"stream":"DOWN_1_a_0"}`)}, true},
		"a lane's":      {nats.Msg{Data: []byte(`{"stream":"UP_0","seq":22}`)}, false},
		"anything":      {nats.Msg{Data: []byte(`{"x":{"seq":1}}`)}, false},
		"no responders": {nats.Msg{Header: nats.Header{"Status": {"503"}}}, false},
	} {
		if err := pubAckError(&c.msg); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
