package uplink

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/subject"
)

// flights is the table of events between Publish and PublishDone. Slots are reused; a
// reply subject is <inbox>.<slot>-<generation>, so an answer to what the slot held
// before finds nothing.
type flights struct {
	reply string // inbox and a dot
	lanes []lane
	slots []flight
	free  []int

	at     int       // the slot that advance looks at next
	oldest time.Time // of those that it looked at since slot 0

	gen   uint64  // of the event added last; never starts again
	spare []event // the queue's other half
}

type flight struct {
	event
	state    state
	attempts uint16
	lane     int
	serial   uint64 // of the attempt, within its lane
	gen      uint64
	due      time.Time // of flying: the attempt's timeout; of waiting: the next attempt
	msg      nats.Msg  // made at the first attempt, the same at every other
}

// lane is what waits for a lane's turn, and what its answers tell of what it has not
// answered.
type lane struct {
	ready  []int     // slots to be published, oldest first
	at     int       // of ready, up to here done
	flying int       // slots that are published and not answered
	sent   uint64    // the serial of the last publish
	newest uint64    // the highest serial that was answered
	heard  time.Time // when anything was answered last
}

type state uint8

const (
	free    state = iota
	ready         // listed in its lane
	flying        // published, not answered
	waiting       // for its next attempt
)

func (f *flights) busy() bool { return len(f.free) < len(f.slots) }

func (f *flights) add(e event) {
	if len(f.free) == 0 {
		f.slots = append(f.slots, flight{})
		f.free = append(f.free, len(f.slots)-1)
	}
	i := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	s := &f.slots[i]
	f.gen++
	*s = flight{event: e, gen: f.gen, due: e.since, lane: subject.Lane(e.ev.User, len(f.lanes))}
	f.getReady(i)
}

// getReady lists slot i for publishing, behind what is ready already.
func (f *flights) getReady(i int) {
	s := &f.slots[i]
	s.state = ready
	l := &f.lanes[s.lane]
	l.ready = append(l.ready, i)
}

func (f *flights) release(i int) event {
	s := &f.slots[i]
	e := s.event
	f.land(s)
	*s = flight{}
	f.free = append(f.free, i)
	return e
}

// shrink gives the memory of a burst back, once nothing is in flight.
func (f *flights) shrink() {
	if !f.busy() && len(f.slots) > look {
		*f = flights{reply: f.reply, lanes: f.lanes, gen: f.gen}
		for i := range f.lanes {
			f.lanes[i].ready, f.lanes[i].at = nil, 0
		}
	}
}

func (f *flights) fly(i int, now time.Time) {
	s := &f.slots[i]
	s.state = flying
	s.due = now.Add(ackTimeout)
	l := &f.lanes[s.lane]
	l.sent++
	s.serial = l.sent
	l.flying++
}

// heard notes that slot i was answered. Which of several attempts was it nobody can tell.
func (f *flights) heard(i int, now time.Time) {
	s := &f.slots[i]
	l := &f.lanes[s.lane]
	l.heard = now
	if s.attempts == 0 {
		l.newest = max(l.newest, s.serial)
	}
}

// onItsWay reports whether a publish that is not answered in time will be: a lane answers
// in the order of the publishes, so as long as it does, what it has not come to yet waits
// its turn. Published again, it would be one more to wait for. What the lane has passed
// over is lost.
func (f *flights) onItsWay(s *flight, now time.Time) bool {
	l := &f.lanes[s.lane]
	return s.serial > l.newest && now.Sub(l.heard) < ackTimeout
}

func (f *flights) land(s *flight) {
	if s.state == flying {
		f.lanes[s.lane].flying--
	}
}

// wait lets slot i wait for its next attempt: doubling from firstWait, half of it
// random so that a crowd refused together does not come back together.
func (f *flights) wait(i int, now time.Time) {
	s := &f.slots[i]
	f.land(s)
	d := min(firstWait<<min(s.attempts, 10), longestWait)
	s.attempts++
	s.state = waiting
	s.due = now.Add(d/2 + rand.N(d/2))
}

// resend makes everything that was on its way when the connection broke ready again.
func (f *flights) resend() {
	for i := range f.slots {
		if s := &f.slots[i]; s.state == flying || s.state == waiting {
			f.land(s)
			s.attempts = max(s.attempts, 1) // the answer to the one before may still come
			f.getReady(i)
		}
	}
}

func (f *flights) replyOf(i int) string {
	b := make([]byte, 0, len(f.reply)+20)
	b = append(b, f.reply...)
	b = strconv.AppendUint(b, uint64(i), 36)
	b = append(b, '-')
	return string(strconv.AppendUint(b, f.slots[i].gen, 36))
}

// find returns the slot that a reply subject belongs to, if it still holds that event.
func (f *flights) find(reply string) (int, bool) {
	slot, gen, ok := strings.Cut(strings.TrimPrefix(reply, f.reply), "-")
	if !ok {
		return 0, false
	}
	i, err1 := strconv.ParseUint(slot, 36, 32)
	g, err2 := strconv.ParseUint(gen, 36, 64)
	if err1 != nil || err2 != nil || i >= uint64(len(f.slots)) {
		return 0, false
	}
	s := &f.slots[i]
	return int(i), s.state != free && s.gen == g
}
