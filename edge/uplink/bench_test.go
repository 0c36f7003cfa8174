package uplink

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// flown is an event that was published, and what JetStream will answer.
type flown struct {
	user   userid.ID
	lane   int
	answer nats.Msg
}

// loaded is an uplink that holds n events, and what it publishes, oldest first.
func loaded(n int) (*Uplink, chan flown) {
	u, sky := quiet(), make(chan flown, 2*n)
	u.patience = time.Hour
	u.send = func(m *nats.Msg) error {
		lane, user, err := subject.ParseUp(m.Subject)
		sky <- flown{user, lane, nats.Msg{Subject: m.Reply, Data: []byte(`{"stream":"UP_` + strconv.Itoa(lane) + `", "seq":1}`)}}
		return err
	}
	for i := range n {
		u.Publish(new(stalls), envelope.Event{User: userid.MustParse("u" + strconv.Itoa(i)), Type: envelope.Frame})
	}
	u.take()
	u.publishReady(time.Now())
	return u, sky
}

// BenchmarkAck is one acknowledgement and the publish that follows it: with 200,000 events
// most wait for a place in the window.
func BenchmarkAck(b *testing.B) {
	for _, n := range []int{1, 100, 4000, 200_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			u, sky := loaded(n)
			s := new(stalls)
			b.ReportAllocs()
			for b.Loop() {
				e := <-sky
				u.answered(&e.answer)
				u.Publish(s, envelope.Event{User: e.user, Type: envelope.Frame})
				u.take()
				u.publishReady(time.Now())
				u.flights.shrink()
			}
		})
	}
}

// BenchmarkTick is one look at what is due: a hundred a second.
func BenchmarkTick(b *testing.B) {
	for _, n := range []int{1, 100, 4000, 200_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			u, _ := loaded(n)
			now := time.Now()
			for b.Loop() {
				u.advance(now)
			}
		})
	}
}
