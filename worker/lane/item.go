package lane

import (
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
)

// item is one message of the lane as it was delivered.
type item struct {
	msg *nats.Msg
	delivery
	ev  envelope.Event
	bad string // why ev could not be read; "" when it could
}

// delivery is what the server says about one delivery, in the subject for its ack.
type delivery struct {
	deliveries  uint64 // of this message to this consumer since its reset, from 1
	streamSeq   uint64
	consumerSeq uint64 // counts the consumer's deliveries since its reset, from 1
	pending     uint64 // messages behind this one
}

// parseDelivery reads an ack subject (NATS ADR-15):
//
//	$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>. … the same five … .<random>
func parseDelivery(ack string) (delivery, bool) {
	rest, ok := strings.CutPrefix(ack, "$JS.ACK.")
	if !ok {
		return delivery{}, false
	}
	skip := 2
	switch n := strings.Count(rest, "."); {
	case n == 6:
	case n >= 8:
		skip = 4
	default:
		return delivery{}, false
	}
	for range skip {
		_, rest, _ = strings.Cut(rest, ".")
	}
	var v [5]uint64
	for i := range v {
		var num string
		num, rest, _ = strings.Cut(rest, ".")
		if v[i], ok = decimal(num); !ok {
			return delivery{}, false
		}
	}
	return delivery{deliveries: v[0], streamSeq: v[1], consumerSeq: v[2], pending: v[4]}, true
}

func decimal(s string) (uint64, bool) {
	n := uint64(0)
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, s != "" && len(s) <= 19
}

// newItem reads a message of lane. A message that cannot be read becomes an item too:
// it must be acknowledged in its place.
func newItem(lane int, msg *nats.Msg, d delivery) item {
	it := item{msg: msg, delivery: d}
	n, user, err := subject.ParseUp(msg.Subject)
	switch {
	case err != nil:
		it.bad = "subject " + msg.Subject + ": " + err.Error()
		return it
	case n != lane:
		it.bad = "subject " + msg.Subject + " is another lane's"
		return it
	}
	it.ev, err = envelope.Parse(msg.Header)
	if err != nil {
		it.bad = err.Error()
		return it
	}
	it.ev.User, it.ev.Data = user, msg.Data
	return it
}
