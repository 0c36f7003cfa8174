package uplink

import (
	"strconv"
	"strings"
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

// An answer to what is settled tells as well that its lane answers: in an overload, where
// what was published twice is answered twice, it would else be taken for silent, and all of
// it be published once more.
func TestALateAnswerIsASignOfLife(t *testing.T) {
	u := quiet()
	began := time.Now()
	var given stalls
	i, late := u.flyAt(&given, 0, began)
	u.settle(i, 0, ErrStalled, outStalled)
	same, _ := u.flyAt(&given, 0, began)
	other, _ := u.flyAt(&given, 1, began)
	u.answered(late)
	u.advance(began.Add(ackTimeout))
	if s := u.flights.slots; s[same].state != flying || s[other].state != waiting {
		t.Errorf("states %d and %d, want %d of the lane that answers and %d of the other", s[same].state, s[other].state, flying, waiting)
	}
}

// Everything gets its turn, in the order in which it came, however much waits for the window.
func TestOrderBehindTheWindow(t *testing.T) {
	const n = 3 * window
	u, sky := loaded(n)
	var last [2]uint64
	for i := range n {
		var e flown
		select {
		case e = <-sky:
		default:
			t.Fatalf("%d of %d were published", i, n)
		}
		_, text, _ := strings.Cut(e.answer.Subject, "-")
		gen, err := strconv.ParseUint(text, 36, 64)
		if err != nil || gen <= last[e.lane] {
			t.Fatalf("%s behind %d of lane %d", e.answer.Subject, last[e.lane], e.lane)
		}
		last[e.lane] = gen
		u.answered(&e.answer)
		u.publishReady(time.Now())
	}
	if u.flights.busy() {
		t.Error("something is left")
	}
}

// A tick does not look at all of a large table, but some ticks do.
func TestTicksLookAtEverything(t *testing.T) {
	u := quiet()
	began := time.Now()
	for range look + look/2 {
		u.flyAt(new(stalls), 0, began)
	}
	late := func() (n int) {
		for i := range u.flights.slots {
			if u.flights.slots[i].state == waiting {
				n++
			}
		}
		return n
	}
	for _, want := range []int{look, look + look/2} {
		if u.advance(began.Add(ackTimeout)); late() != want {
			t.Errorf("%d were looked at, want %d", late(), want)
		}
	}
}
