package agent

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/shared/protocol"
)

// send is one message, 24 bytes.
type send struct {
	due      time.Duration
	from, to uint32 // devices; to is the first of the recipient's
	came     uint32 // bit 0: the echo; bit i: the recipient's i-th device
	written  bool
	again    bool // sent more than once
	refused  bool // for ever
}

// sends are all messages of a run.
type sends struct {
	plan    *Plan
	all     []send
	whole   uint32 // what came has all of it
	pending int    // sends of which something is still awaited
	prefix  []byte // of each clientMsgId
	pad     []byte // of each body
}

const bodyFrame = len(`{"n":,"pad":""}`) + 10 // with a long number

func (s *sends) init(p *Plan) {
	s.plan, s.whole = p, 0b11
	switch p.Traffic {
	case Self:
		s.whole = 0b1
	case Fanout:
		s.whole = 1<<(p.Devices+1) - 1
	}
	s.prefix = fmt.Appendf(nil, "%s.%d.", p.Run, p.Index)
	s.pad = bytes.Repeat([]byte("x"), max(0, p.Size-bodyFrame))
}

func (s *sends) add(due time.Duration, from, to uint32) uint32 {
	s.all = append(s.all, send{due: due, from: from, to: to})
	s.pending++
	return uint32(len(s.all) - 1)
}

// body appends the same bytes whenever it is asked for the same message.
func (s *sends) body(b []byte, n uint32) []byte {
	b = strconv.AppendUint(append(b, `{"n":`...), uint64(n), 10)
	b = append(append(b, `,"pad":"`...), s.pad...)
	return append(b, `"}`...)
}

// number finds a message by its clientMsgId; ok is false when it is not of this agent.
func (s *sends) number(clientMsgID string) (n uint32, ok bool) {
	if len(clientMsgID) <= len(s.prefix) || clientMsgID[:len(s.prefix)] != string(s.prefix) {
		return 0, false
	}
	v, err := strconv.ParseUint(clientMsgID[len(s.prefix):], 10, 32)
	return uint32(v), err == nil && v < uint64(len(s.all))
}

// place returns which bit of came a device has; ok is false when the message is not for it.
func (s *sends) place(m *send, device uint32) (bit uint32, ok bool) {
	switch {
	case device == m.from:
		return 1, true
	case device == m.to:
		return 2, true
	case s.plan.Traffic == Fanout && device > m.to && device < m.to+uint32(s.plan.Devices):
		return 2 << (device - m.to), true
	}
	return 0, false
}

// settled reports whether nothing is awaited of a message any more.
func (s *sends) settled(m *send) bool { return m.refused || m.came == s.whole }

// audit counts what never came.
func (s *sends) audit() (unanswered, missing int64) {
	for i := range s.all {
		m := &s.all[i]
		switch {
		case m.refused:
		case m.came&1 == 0:
			unanswered++
		default:
			missing += int64(bits.OnesCount32(s.whole &^ m.came))
		}
	}
	return unanswered, missing
}

// write sends a message on a device's connection.
func (a *agent) write(d *device, n uint32) {
	m := &a.sends.all[n]
	msg := protocol.Message{
		MsgType: protocol.Business, BizType: protocol.BizChat, BizOptModule: protocol.OpSend,
		ReceivedUserID: a.users.id(a.users.of(int(m.to))),
		ClientMsgID:    string(strconv.AppendUint(slices.Clip(a.sends.prefix), uint64(n), 10)),
		MsgBody:        a.sends.body(nil, n),
	}
	a.frame = msg.Append(a.frame[:0])
	if d.conn.Text(a.frame) != nil {
		return // it stays in the outbox, and is sent again on the next connection
	}
	if !m.written {
		m.written = true
		a.times.Record(tally.Lag, a.client.Now()-m.due)
	}
}

// arrived takes a stored message at a device.
func (a *agent) arrived(device uint32, clientMsgID string) {
	n, ok := a.sends.number(clientMsgID)
	if !ok {
		a.stranger()
		return
	}
	m := &a.sends.all[n]
	bit, ok := a.sends.place(m, device)
	switch {
	case !ok:
		a.counts[tally.Foreign]++
		return
	case m.came&bit != 0:
		a.counts[tally.Twice]++
		if !m.again {
			a.counts[tally.Unasked]++
		}
		return
	}
	m.came |= bit
	took := a.client.Now() - m.due
	if bit == 1 {
		a.counts[tally.Acked]++
		a.span.LastAck = time.Now().UnixNano()
		a.times.Record(tally.Ack, took)
		a.forget(&a.devices[m.from], n)
	} else {
		a.counts[tally.Delivered]++
		a.times.Record(tally.Deliver, took)
	}
	if a.sends.settled(m) {
		a.sends.pending--
	}
}

// stranger counts a frame about a message that this agent never sent. To users of its
// own nobody else can send; those of a token file may be known to others.
func (a *agent) stranger() {
	if a.plan.Secret != "" {
		a.counts[tally.Foreign]++
	}
}

// refused takes a refusal.
func (a *agent) refused(clientMsgID string, code int) {
	n, ok := a.sends.number(clientMsgID)
	switch {
	case !ok:
		a.stranger()
	case !protocol.Permanent(code):
		a.counts[tally.Deferred]++ // the gateway keeps it and tries by itself
	case !a.sends.all[n].refused:
		a.counts[tally.Refused]++
		a.ends["refused with "+strconv.Itoa(code)]++
		a.sends.all[n].refused = true
		a.sends.pending--
		a.forget(&a.devices[a.sends.all[n].from], n)
	}
}

// forget takes a message out of an outbox.
func (a *agent) forget(d *device, n uint32) {
	if i := slices.Index(d.outbox, n); i >= 0 {
		d.outbox = slices.Delete(d.outbox, i, i+1)
	}
	if len(d.outbox) == 0 {
		d.outbox = nil // an agent may have thousands that sent once
	}
}
