package check

import (
	"cmp"
	"slices"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// note keeps what entry at, just added from r, says about its life, connection, message
// or fault.
func (m *model) note(r *history.Record, at int32) {
	e := &m.entries[at]
	switch e.kind {
	case kRun:
		m.run = *r
	case kQuiet:
		m.quiet = min(m.quiet, e.t)
	case kDone:
		m.done = true
	case kFault, kHeal:
		m.noteFault(r, at)
	case kPoison:
		m.poisons = append(m.poisons, letter{at, m.cids.id(r.CID)})
	case kDead:
		m.deads = append(m.deads, letter{at, m.cids.id(r.CID)})
	case kWiped:
		m.wiped = append(m.wiped, at)
	case kRow:
		m.rows.entries = append(m.rows.entries, at)
	case kRead:
		m.rows.reads = append(m.rows.reads, at)
	}
	if e.life != none {
		m.noteLife(r, at)
	}
	if e.conn != none {
		m.noteConn(at)
	}
	if e.msg != none {
		m.noteMessage(at)
	}
}

func (m *model) noteFault(r *history.Record, at int32) {
	if r.Kind == history.Fault {
		m.faults = append(m.faults, fault{entry: at, name: r.Name, number: r.Fault, kill: r.Kill, from: r.T, heal: never})
		return
	}
	for i := len(m.faults) - 1; i >= 0; i-- {
		if f := &m.faults[i]; f.number == r.Fault && f.heal == never {
			f.heal = r.T
			return
		}
	}
}

func (m *model) noteLife(r *history.Record, at int32) {
	e := &m.entries[at]
	l := &m.lives[e.life]
	switch e.kind {
	case kBegin:
		l.begin, l.fresh, l.slow = at, r.Fresh, r.Slow
		m.devices[l.dev].user = e.user
		if len(r.Cursors) > 0 {
			l.cursors = make(map[int32]int64, len(r.Cursors))
			for conv, seq := range r.Cursors {
				l.cursors[m.convs.id(conv)] = seq
			}
		}
		if before := m.before(e.life); before != none && m.lives[before].end == none {
			m.lives[before].crashed = true
		}
	case kEnd:
		l.end = at
		l.crashed = l.crashed || r.Code == 1
	case kSynced:
		l.synced = min(l.synced, e.t)
	case kOutbox:
		l.outbox = at
	}
}

// before returns the life of the same device before this one.
func (m *model) before(life int32) int32 {
	all := m.devices[m.lives[life].dev].lives
	if i := slices.Index(all, life); i > 0 {
		return all[i-1]
	}
	return none
}

func (m *model) noteConn(at int32) {
	e := &m.entries[at]
	for int(e.conn) >= len(m.conns) {
		m.conns = append(m.conns, conn{life: e.life, open: none, close: none})
	}
	switch c := &m.conns[e.conn]; e.kind {
	case kOpen:
		c.open = at
	case kClose:
		c.close = at
	}
}

func (m *model) noteMessage(at int32) {
	e := &m.entries[at]
	msg := &m.messages[e.msg]
	user := m.userOf(e.life)
	switch e.kind {
	case kSend:
		if e.is(fReuse) {
			if msg.reuse == none {
				msg.reuse = at
			}
		} else if msg.send == none {
			msg.send = at
		}
	case kAck:
		msg.stored, msg.acked, msg.resolved = min(msg.stored, e.t), min(msg.acked, e.t), min(msg.resolved, e.t)
	case kRefusal:
		msg.resolved = min(msg.resolved, e.t)
	case kWire, kEvent:
		msg.stored = min(msg.stored, e.t)
		if user == msg.sender {
			msg.acked, msg.resolved = min(msg.acked, e.t), min(msg.resolved, e.t)
		} else {
			msg.delivered = min(msg.delivered, e.t)
		}
	}
}

// finish makes what needs the whole history.
func (m *model) finish() {
	slices.SortStableFunc(m.faults, func(a, b fault) int { return cmp.Compare(a.from, b.from) })
	m.place()
}

// sent reports whether a client sent the message; others only spoke of it.
func (g *message) sent() bool { return g.send != none }

// sentAt is when a message was first sent; never when it was not.
func (m *model) sentAt(msg int32) int64 {
	if s := m.messages[msg].send; s != none {
		return m.entries[s].t
	}
	return never
}

// lifeEnd is when a life ended; never when it did not.
func (m *model) lifeEnd(life int32) int64 {
	if e := m.lives[life].end; e != none {
		return m.entries[e].t
	}
	return never
}

// excused reports whether a message may be without an answer: the life that sent it was
// cut off, and what it had not saved is nobody's duty any more.
func (m *model) excused(g *message) bool {
	return g.sent() && g.resolved == never && m.lives[m.entries[g.send].life].crashed
}
