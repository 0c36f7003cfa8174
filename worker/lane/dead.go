package lane

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// nobody stands in the subject of a dead message whose own subject names no user.
var nobody = userid.MustParse("unknown")

// bury publishes the message to the dead stream and waits for its PubAck; it tries again
// until it is there. Errors are those of retry.
func (t *tenure) bury(it *item, reason string) error {
	out := deadMessage(t.lane, it, reason)
	id := jetstream.WithMsgID(fmt.Sprintf("%s/%d/%d", stream.Up(t.lane), t.ledger.rec.Consumer.UnixNano(), it.streamSeq))
	err := t.retry("dead message cannot be stored, lane waits and tries again", func() error {
		ctx, cancel := context.WithTimeout(t.work, takeOverTimeout)
		defer cancel()
		_, err := t.g.js.PublishMsg(ctx, out, id, jetstream.WithRetryAttempts(0))
		if missing(err) {
			t.g.cfg.Missing("stream " + stream.Dead)
		}
		return err
	})
	if err == nil {
		t.m.dead.Inc()
		t.log.Warn("message is dead", "reason", reason, "subject", it.msg.Subject, "seq", it.streamSeq)
	}
	return err
}

// deadMessage is the message as it came, with the reason, without what JetStream would
// obey (Nats-Rollup, Nats-Expected-…) or has added (Nats-Pin-Id).
func deadMessage(lane int, it *item, reason string) *nats.Msg {
	user := it.ev.User
	if user.IsZero() {
		user = nobody
		if _, id, err := subject.ParseUp(it.msg.Subject); err == nil {
			user = id
		}
	}
	h := make(map[string][]string, len(it.msg.Header)+2)
	for k, v := range it.msg.Header {
		if !strings.HasPrefix(strings.ToLower(k), "nats-") {
			h[k] = v
		}
	}
	return &nats.Msg{Subject: subject.Dead(lane, user), Header: envelope.WithReason(h, reason), Data: it.msg.Data}
}
