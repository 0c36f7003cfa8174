package lane

import (
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

// item is one message of the lane as it was delivered.
type item struct {
	msg *nats.Msg
	delivery
	ev  envelope.Event
	bad string // why ev could not be read; "" when it could

	// early means that what ev's connection sent before it may be lost: it is acknowledged
	// and not worked.
	early bool
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
	it.early = early(&it.ev, d.streamSeq)
	return it
}

// early reports whether ev is a frame whose connection's frame before it is in
// another incarnation of the lane than ev itself [r]. All of NATS' data was lost between
// the two; had the one before not been worked, working ev would put it in front.
//
// It may be left out because its edge closes the connection: the edge compares the
// incarnations of the two PubAcks (edge/socket: published). The client then sends what
// is not acknowledged again, in its order, on a connection whose first frame names none.
//
//   - The PubAck of ev is lost: the edge publishes ev again, with the same header. The
//     copy is left out too, unless it is in the incarnation of the frame before.
//   - ev is given up (ErrStalled), or its edge dies: the connection ends with that.
//   - ev had two copies, one in the incarnation of the frame before and one here, and the
//     first one's PubAck counts: the connection stays. What it sends next names that same
//     older incarnation, is left out here as well, and closes the connection. So nothing
//     overtakes; a client that sends nothing new repeats ev after its timeout.
//   - An edge that does not know the header does not close, and names nothing: its frames
//     are worked. So are all events that tell who is connected: nothing is in an order
//     with them, and a lost one is not repeated.
func early(ev *envelope.Event, seq uint64) bool {
	return ev.Type == envelope.Frame && ev.After != 0 && ev.After != stream.Incarnation(seq)
}
