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

// What is kept of a dead message, in bytes. What is longer is cut: an event may be as large
// as NATS takes, which leaves no room for the reason, and a few hundred of those would push
// everything else out of the dead stream.
const (
	maxDeadData   = 64 << 10
	maxDeadHeader = 4 << 10 // names and values together; all are left out when they are longer
	maxReason     = 1 << 10
)

// nobody stands in the subject of a dead message whose own subject names no user.
var nobody = userid.MustParse("unknown")

// bury publishes the message to the dead stream and waits for its PubAck; it tries again
// until it is there. Errors are those of retry.
func (t *tenure) bury(it *item, reason string) error {
	room := min(maxDeadData, int(t.g.js.Conn().MaxPayload())/2)
	out := deadMessage(t.lane, it, reason, room)
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
// obey (Nats-Rollup, Nats-Expected-…) or has added (Nats-Pin-Id), and of its payload at most room bytes.
func deadMessage(lane int, it *item, reason string, room int) *nats.Msg {
	user := it.ev.User
	if user.IsZero() {
		user = nobody
		if _, id, err := subject.ParseUp(it.msg.Subject); err == nil {
			user = id
		}
	}
	data := it.msg.Data
	reason = reason[:min(len(reason), maxReason)]
	if len(data) > room {
		reason = fmt.Sprintf("%s (of %d bytes the first %d are here)", reason, len(data), room)
		data = data[:room]
	}
	return &nats.Msg{Subject: subject.Dead(lane, user), Header: envelope.WithReason(deadHeader(it.msg.Header), reason), Data: data}
}

// deadHeader returns the headers that a dead message keeps.
func deadHeader(from nats.Header) map[string][]string {
	h, size := make(map[string][]string, len(from)+2), 0
	for k, values := range from {
		if strings.HasPrefix(strings.ToLower(k), "nats-") {
			continue
		}
		h[k] = values
		for _, v := range values {
			size += len(k) + len(v)
		}
	}
	if size > maxDeadHeader {
		return nil
	}
	return h
}
