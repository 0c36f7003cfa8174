package uplink

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

// run owns u.flights.
func (u *Uplink) run() {
	defer close(u.stopped)
	ticker := time.NewTicker(tick)
	ticker.Stop()
	defer ticker.Stop()
	ticking := false
	for {
		select {
		case <-u.wake:
			u.take()
		case m := <-u.acks:
			u.answered(m)
			for range len(u.acks) {
				u.answered(<-u.acks)
			}
		case now := <-ticker.C:
			u.advance(now)
		case <-u.stop:
			u.abandon()
			return
		}
		u.publishReady(time.Now())
		u.flights.shrink()
		if busy := u.flights.busy(); busy != ticking {
			if ticking = busy; busy {
				ticker.Reset(tick)
			} else {
				ticker.Stop()
				u.m.oldest.Set(0)
			}
		}
	}
}

// take moves the queue into flights.
func (u *Uplink) take() {
	u.in.mu.Lock()
	queue, back := u.in.queue, u.in.back
	over := u.in.held > maxEvents || u.in.bytes > maxBytes
	u.in.queue, u.in.back = u.flights.spare[:0], false
	u.in.mu.Unlock()
	for i := range queue {
		if over { // the newest are refused until the room holds less
			u.finish(&queue[i], 0, ErrStalled, outFull)
			continue
		}
		u.flights.add(queue[i])
	}
	clear(queue)
	if u.flights.spare = queue; cap(queue) > window { // of a burst
		u.flights.spare = nil
	}
	if back {
		u.flights.resend()
	}
}

// advance does what is due: gives up, takes timeouts for failures, ends waits. It looks at
// so many slots, in turn, that in an overload what is due is found some ticks late, but the
// look does not take all the time that there is.
func (u *Uplink) advance(now time.Time) {
	f := &u.flights
	for range min(len(f.slots), look) {
		if f.at == 0 {
			f.oldest = now
		}
		if s := &f.slots[f.at]; s.state != free {
			if s.since.Before(f.oldest) {
				f.oldest = s.since
			}
			u.check(f.at, now)
		}
		if f.at++; f.at == len(f.slots) {
			u.m.oldest.Set(now.Sub(f.oldest).Seconds())
			f.at = 0
		}
	}
}

// check does what is due in slot i.
func (u *Uplink) check(i int, now time.Time) {
	f := &u.flights
	s := &f.slots[i]
	switch {
	case now.Sub(s.since) >= u.patience:
		u.settle(i, 0, ErrStalled, outStalled)
	case now.Before(s.due):
	case s.state == flying && f.onItsWay(s, now):
		s.due = f.lanes[s.lane].heard.Add(ackTimeout)
	case s.state == flying:
		u.m.retries[retryTimeout].Inc()
		f.wait(i, now)
	case s.state == waiting:
		f.getReady(i)
	}
}

// publishReady publishes each lane's events in the order in which they became ready, up to
// the lane's part of the window: one that is slow takes nothing from the others.
func (u *Uplink) publishReady(now time.Time) {
	f := &u.flights
	for i := range f.lanes {
		u.publishLane(&f.lanes[i], now)
	}
	u.m.inFlight.Set(float64(len(f.slots) - len(f.free)))
}

func (u *Uplink) publishLane(l *lane, now time.Time) {
	f := &u.flights
	for ; l.at < len(l.ready) && l.flying < max(window/len(f.lanes), 1); l.at++ {
		i := l.ready[l.at]
		if f.slots[i].state != ready { // given up meanwhile; the slot may even be another's
			continue
		}
		switch err := u.publish(i); {
		case err == nil:
			f.fly(i, now)
		case errors.Is(err, nats.ErrMaxPayload):
			u.settle(i, 0, ErrTooLarge, outTooLarge)
		default: // disconnected, mostly
			u.m.retries[retryDisconnected].Inc()
			f.wait(i, now)
		}
	}
	if l.at > len(l.ready)/2 { // what is moved is less than what was done
		l.ready, l.at = l.ready[:copy(l.ready, l.ready[l.at:])], 0
	}
}

func (u *Uplink) publish(i int) error {
	s := &u.flights.slots[i]
	if s.msg.Subject == "" {
		s.msg.Subject = subject.Up(s.lane, s.ev.User)
		s.msg.Header = nats.Header(s.ev.Header())
		s.msg.Data = s.ev.Data
		s.msg.Reply = u.flights.replyOf(i)
	}
	return u.send(&s.msg)
}

// answered settles the event that m answers, or lets it wait for its next attempt. An
// answer to an earlier attempt counts as well: stored is stored.
func (u *Uplink) answered(m *nats.Msg) {
	i, ok := u.flights.find(m.Subject)
	if !ok {
		u.m.late.Inc()
		u.heardLate(m)
		return
	}
	switch seq, cause := answer(m, u.names[u.flights.slots[i].lane]); {
	case cause == stored:
		now := time.Now()
		u.m.latency.Observe(now.Sub(u.flights.slots[i].since).Seconds())
		u.flights.heard(i, now)
		u.settle(i, stream.Incarnation(seq), nil, outStored)
	case u.flights.slots[i].state == flying: // else it waits already
		u.m.retries[cause].Inc()
		u.flights.wait(i, time.Now())
	}
}

// heardLate takes a late acknowledgement, mostly that of the other one of two attempts, for
// the sign of life that it is. Its event is settled, so its lane stands in the answer alone.
func (u *Uplink) heardLate(m *nats.Msg) {
	for lane, name := range u.names {
		if _, ok := plainAck(m.Data, name); ok {
			u.flights.lanes[lane].heard = time.Now()
			return
		}
	}
}

const ackPrefix = `{"stream":"` // what a positive PubAck begins with, before the stream's name

var (
	ackSeq   = []byte(`"seq":`) // what its sequence stands behind
	ackError = []byte(`"error"`)
)

// plainAck reads the sequence of a positive PubAck of a stream without decoding it (fast
// path).
func plainAck(data []byte, name string) (seq uint64, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(ackPrefix))
	if !ok || len(rest) <= len(name) || string(rest[:len(name)]) != name || rest[len(name)] != '"' || bytes.Contains(data, ackError) {
		return 0, false
	}
	_, rest, _ = bytes.Cut(rest, ackSeq)
	for _, c := range bytes.TrimLeft(rest, " ") {
		if c < '0' || '9' < c {
			break
		}
		seq = seq*10 + uint64(c-'0')
	}
	return seq, seq != 0
}

// answer reads what JetStream answered: the sequence of an event that is stored in the
// stream of that name, or why it is not. Another stream's answer is none: whoever knows a
// reply subject can have JetStream answer there.
func answer(m *nats.Msg, name string) (seq uint64, cause retry) {
	if seq, ok := plainAck(m.Data, name); ok {
		return seq, stored
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return 0, retryNoResponders
	}
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
		Error  *struct {
			Code uint16 `json:"err_code"`
		} `json:"error"`
	}
	const storeFailed = 10077 // JSStreamStoreFailedF: over max_bytes with discard new, or no space
	switch err := json.Unmarshal(m.Data, &ack); {
	case err != nil:
		return 0, retryOther
	case ack.Error == nil && ack.Stream == name:
		return ack.Seq, stored
	case ack.Error != nil && ack.Error.Code == storeFailed:
		return 0, retryFull
	}
	return 0, retryOther
}

// settle tells the sender of slot i and frees the slot.
func (u *Uplink) settle(i int, incarnation uint32, err error, o outcome) {
	e := u.flights.release(i)
	u.finish(&e, incarnation, err, o)
}

func (u *Uplink) finish(e *event, incarnation uint32, err error, o outcome) {
	u.m.outcomes[o].Inc()
	u.in.mu.Lock()
	u.in.held--
	u.in.bytes -= len(e.ev.Data)
	if u.in.held == 0 && u.in.idle != nil {
		close(u.in.idle)
		u.in.idle = nil
	}
	u.in.mu.Unlock()
	e.sender.PublishDone(incarnation, err)
}

// abandon fails everything when the room closes.
func (u *Uplink) abandon() {
	for i := range u.flights.slots {
		if u.flights.slots[i].state != free {
			u.settle(i, 0, ErrClosed, outClosed)
		}
	}
	u.refuseQueue()
}

func (u *Uplink) refuseQueue() {
	u.in.mu.Lock()
	queue := u.in.queue
	u.in.queue = nil
	u.in.mu.Unlock()
	for i := range queue {
		u.finish(&queue[i], 0, ErrClosed, outClosed)
	}
}
