package uplink

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// quiet is an uplink that publishes nothing.
func quiet() *Uplink {
	u := &Uplink{patience: Patience, m: newMetrics(prometheus.NewRegistry()), names: []string{"UP_0", "UP_1"}}
	u.flights.reply, u.flights.lanes = "inbox.", make([]lane, 2)
	return u
}

// stalls counts events that were given up.
type stalls int

func (s *stalls) PublishDone(_ uint32, err error) {
	if err == ErrStalled {
		*s++
	}
}

// userOf is a user of one of two lanes.
func userOf(lane int) userid.ID {
	for n := 0; ; n++ {
		if u := userid.MustParse("u" + strconv.Itoa(n)); subject.Lane(u, 2) == lane {
			return u
		}
	}
}

// flyAt publishes one event of a lane, as publishReady does.
func (u *Uplink) flyAt(s Sender, lane int, now time.Time) (slot int, answer *nats.Msg) {
	f := &u.flights
	f.add(event{sender: s, ev: envelope.Event{User: userOf(lane)}, since: now})
	l := &f.lanes[lane]
	slot = l.ready[len(l.ready)-1]
	l.ready = l.ready[:0]
	f.fly(slot, now)
	return slot, &nats.Msg{Subject: f.replyOf(slot), Data: []byte(`{"stream":"UP_` + strconv.Itoa(lane) + `", "seq":1}`)}
}

// A lane that answers, however late, is not sent anything twice: in an overload that would
// be the last straw. What it passed over is lost, and sent again; so is everything when
// nothing is answered any more.
func TestWhatIsOnItsWayIsNotSentAgain(t *testing.T) {
	u := quiet()
	f := &u.flights
	began := time.Now()
	var given stalls
	var slots []int
	var answers []*nats.Msg
	for range 5 {
		i, m := u.flyAt(&given, 0, began)
		slots, answers = append(slots, i), append(answers, m)
	}
	other, _ := u.flyAt(&given, 1, began)
	states := func(want string) {
		t.Helper()
		got := ""
		for _, i := range append(slots, other) {
			got += string("-rfw"[f.slots[i].state])
		}
		if got != want {
			t.Errorf("slots are %s, want %s", got, want)
		}
	}
	at := func(d time.Duration) time.Time { return began.Add(d) }

	f.heard(slots[0], at(ackTimeout-time.Millisecond)) // late, but it comes
	u.settle(slots[0], 1, nil, outStored)
	u.advance(at(ackTimeout))
	states("-ffffw") // the other lane has answered nothing
	u.advance(at(2*ackTimeout - 2*time.Millisecond))
	states("-ffffr")

	f.heard(slots[2], at(2*ackTimeout-2*time.Millisecond)) // it has passed over one
	u.settle(slots[2], 1, nil, outStored)
	u.advance(at(2 * ackTimeout))
	states("-w-ffr")

	u.advance(at(3*ackTimeout - time.Millisecond)) // it has fallen silent
	states("-r-wwr")

	u.answered(answers[3]) // that of the first attempt, or of the second
	if f.lanes[0].newest != 3 || f.slots[slots[3]].state != free {
		t.Errorf("the newest that was answered is %d, want 3; slot is %d", f.lanes[0].newest, f.slots[slots[3]].state)
	}
	u.advance(at(Patience))
	if states("------"); given != 3 {
		t.Errorf("%d were given up, want 3", given)
	}
}
