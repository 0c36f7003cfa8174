package uplink

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/userid"
)

// loaded is an uplink that holds n events, and the reply subjects of what it published of
// them, oldest first.
func loaded(n int) (u *Uplink, users []userid.ID, replies chan nats.Msg) {
	u = quiet()
	u.patience = time.Hour
	replies = make(chan nats.Msg, 2*n)
	u.send = func(m *nats.Msg) error {
		lane := m.Subject[len("im.up.")]
		replies <- nats.Msg{Subject: m.Reply, Data: []byte(`{"stream":"UP_` + string(lane) + `", "seq":1}`)}
		return nil
	}
	for i := range n {
		users = append(users, userid.MustParse("u"+strconv.Itoa(i)))
		u.Publish(new(stalls), envelope.Event{User: users[i], Type: envelope.Frame})
	}
	u.take()
	u.publishReady(time.Now())
	return u, users, replies
}

// BenchmarkAck is one acknowledgement and the publish that follows it: with 200,000 events
// most wait for a place in the window.
func BenchmarkAck(b *testing.B) {
	for _, n := range []int{1, 100, 4000, 200_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			u, users, replies := loaded(n)
			s := new(stalls)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m := <-replies
				u.answered(&m)
				u.Publish(s, envelope.Event{User: users[i%n], Type: envelope.Frame})
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
			u, _, _ := loaded(n)
			now := time.Now()
			for b.Loop() {
				u.advance(now)
			}
		})
	}
}
