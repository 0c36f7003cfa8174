package security_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/stream"
)

// Whoever monitors has one answer to each question, and it is that of the account in which
// the streams are.
func TestMonitoringSeesTheStreams(t *testing.T) {
	l := lay(t, nil)
	nc := l.connect("monitoring")
	for question, want := range map[string]string{
		"look.STREAM.NAMES":                            stream.Dead,
		"look.STREAM.LIST":                             stream.Dead,
		"look.STREAM.INFO." + l.down:                   l.down,
		"look.CONSUMER.NAMES." + stream.Up(0):          stream.Consumer,
		"look.CONSUMER.LIST." + stream.Up(0):           stream.Consumer,
		"look.CONSUMER.INFO." + stream.Up(0) + ".work": stream.Consumer,
	} {
		inbox := nc.NewInbox()
		sub, err := nc.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishMsg(&nats.Msg{Subject: question, Reply: inbox}); err != nil {
			t.Fatal(err)
		}
		first, err := sub.NextMsg(patience)
		if err != nil {
			t.Errorf("%s: %v", question, err)
			continue
		}
		if !bytes.Contains(first.Data, []byte(`"`+want+`"`)) {
			t.Errorf("%s: %.200q", question, first.Data)
		}
		if m, err := sub.NextMsg(100 * time.Millisecond); err == nil {
			t.Errorf("%s is answered twice: %.200q", question, m.Data)
		}
	}
}
