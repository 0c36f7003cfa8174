package check

import "slices"

// checkAnswers: on the connection on which a send was put comes its echo, a refusal, or
// the end of the connection, in time. The clock of a send that is put again without an
// answer between goes on.
func (m *model) checkAnswers() {
	open := make([]map[int32]int32, len(m.conns)) // by connection: message → first Put
	answer := func(conn, msg int32, until int64) {
		put, ok := open[conn][msg]
		if !ok {
			return
		}
		delete(open[conn], msg)
		if t := m.entries[put].t; until > m.answerDue(t) {
			s := subject{keys: []int32{put}, msgs: []int32{msg}, conns: []int32{conn}}
			m.tell(Resolve, m.sentOr(&m.entries[put]), s, "%s was put on %s and for %s neither answered there nor was the connection closed",
				m.label(msg), m.connNames.name(conn), span(until-t))
		}
	}
	over := func(conn int32, until int64) {
		for _, msg := range sorted(open[conn]) {
			answer(conn, msg, until)
		}
	}
	byLife := make([][]int32, len(m.lives))
	closed := make([]bool, len(m.conns)) // what is put on such a one goes nowhere
	for i := range m.entries {
		e := &m.entries[i]
		switch {
		case e.kind == kEnd && e.life != none:
			for _, c := range byLife[e.life] {
				over(c, e.t)
			}
		case e.kind == kBegin && e.life != none: // the life before may have ended without a word
			if before := m.before(e.life); before != none {
				for _, c := range byLife[before] {
					over(c, e.t)
				}
			}
		case e.conn == none || e.life == none || m.lives[e.life].slow:
		case e.kind == kPut && e.msg != none && !closed[e.conn]:
			if open[e.conn] == nil {
				open[e.conn] = map[int32]int32{}
				byLife[e.life] = append(byLife[e.life], e.conn)
			}
			if _, ok := open[e.conn][e.msg]; !ok {
				open[e.conn][e.msg] = int32(i)
			}
		case e.kind == kWire || e.kind == kLater || e.kind == kNever:
			answer(e.conn, e.msg, e.t) // somebody else's message is not among the puts
		case e.kind == kClose:
			over(e.conn, e.t)
			open[e.conn], closed[e.conn] = nil, true
		}
	}
	for c := range open {
		over(int32(c), m.last)
	}
}

func sorted(open map[int32]int32) []int32 {
	msgs := make([]int32, 0, len(open))
	for msg := range open {
		msgs = append(msgs, msg)
	}
	slices.Sort(msgs)
	return msgs
}

// missing is a message that did not come yet, while a later one of its conversation did.
type missing struct {
	seq   int64
	since int64 // when the later one came
	later int32 // its entry
}

// stream is what a device saw of one conversation since its chain began.
type stream struct {
	high int64 // highest seq so far
	open []missing
}

// chain is a run of connections of one device of which each resumes the one before. It
// promises on the wire every message that was sent after it began. What is older may have
// been read instead; it may come as well, when it is published again.
type chain struct {
	streams map[int32]*stream // by conversation, from the first message that is not older
	start   int64             // when the chain began; never: the next connection begins one
	conn    int32             // none: between two connections
	since   int64             // when that was opened
}

// maxMissing bounds what is remembered as missing in one conversation.
const maxMissing = 1000

// checkHoles: a chain of connections shows every message that was sent after it began.
// When a later one came first, the one that is missing may be late by Limits.WireHole,
// counted from then, and from when the connection was opened that is to bring it. A
// refused resume, a resync and a crash of the device begin a new chain.
func (m *model) checkHoles() {
	chains := make([]chain, len(m.devices))
	for i := range chains {
		chains[i] = chain{conn: none, start: never}
	}
	for i := range m.entries {
		e := &m.entries[i]
		if e.life == none {
			continue
		}
		c := &chains[m.lives[e.life].dev]
		switch e.kind {
		case kOpen:
			m.judgeHoles(c, e.t)
			if !e.is(fResumed) || c.start == never {
				c.streams, c.start = nil, e.t
			}
			c.conn, c.since = e.conn, e.t
		case kClose:
			if c.conn == e.conn {
				m.judgeHoles(c, e.t)
				c.conn = none
			}
		case kResync:
			m.judgeHoles(c, e.t)
			c.streams, c.start = nil, e.t
		case kEnd:
			m.judgeHoles(c, e.t)
			c.conn = none
			if m.lives[e.life].crashed {
				c.start = never
			}
		case kBegin:
			if before := m.before(e.life); before != none && m.lives[before].crashed {
				c.start = never
			}
		case kWire:
			if e.conv != none { // also one on the connection before, whose last frames may be on record late
				m.wire(c, int32(i))
			}
		}
	}
	for i := range chains {
		m.judgeHoles(&chains[i], m.last)
	}
}

// wire takes a message that came on a chain.
func (m *model) wire(c *chain, at int32) {
	e := &m.entries[at]
	s := c.streams[e.conv]
	if s == nil {
		if t := m.sentOr(e); t <= c.start {
			return
		}
		if c.streams == nil {
			c.streams = map[int32]*stream{}
		}
		s = &stream{high: m.lastBefore(e.conv, e.seq, c.start)}
		c.streams[e.conv] = s
	}
	if e.seq > s.high {
		for seq := s.high + 1; seq < e.seq && len(s.open) < maxMissing; seq++ {
			if m.sentAfter(e.conv, seq, c.start) {
				s.open = append(s.open, missing{seq, e.t, at})
			}
		}
		s.high = e.seq
		return
	}
	if i := slices.IndexFunc(s.open, func(h missing) bool { return h.seq == e.seq }); i >= 0 {
		m.judgeHole(c, e.conv, s.open[i], e.t)
		s.open = slices.Delete(s.open, i, i+1)
	}
}

// lastBefore returns the seq before the first of the messages right below seq that were
// sent after a time. Without final history there are none.
func (m *model) lastBefore(conv int32, seq, t int64) int64 {
	for seq--; m.sentAfter(conv, seq, t); seq-- {
	}
	return seq
}

// sentAfter reports whether the message at a place was first sent after a time. It is not
// known of one that is not in final history.
func (m *model) sentAfter(conv int32, seq, t int64) bool {
	r := m.row(conv, seq)
	return r != nil && r.msg != none && m.messages[r.msg].sent() && m.sentAt(r.msg) > t
}

// judgeHoles looks at what is missing on a chain at a time.
func (m *model) judgeHoles(c *chain, now int64) {
	if c.conn == none {
		return
	}
	for _, conv := range sortedStreams(c.streams) {
		s := c.streams[conv]
		s.open = slices.DeleteFunc(s.open, func(h missing) bool { return m.judgeHole(c, conv, h, now) })
	}
}

// judgeHole reports a message that is missing for too long, and whether it did.
func (m *model) judgeHole(c *chain, conv int32, h missing, now int64) bool {
	if c.conn == none || now-max(h.since, c.since) < int64(m.limits.WireHole) {
		return false
	}
	s := subject{keys: []int32{h.later}, msgs: []int32{m.entries[h.later].msg}, conns: []int32{c.conn}}
	t := h.since
	if r := m.row(conv, h.seq); r != nil {
		s.msgs = append(s.msgs, r.msg)
		t = m.sentOr(r)
	}
	m.tell(Hole, t, s, "%s/%d did not come on %s, which has resumed, for %s after %d came", m.convs.name(conv), h.seq,
		m.connNames.name(c.conn), span(now-h.since), m.entries[h.later].seq)
	return true
}

// sortedStreams lists the conversations in which something is missing.
func sortedStreams(streams map[int32]*stream) []int32 {
	var convs []int32
	for conv, s := range streams {
		if len(s.open) > 0 {
			convs = append(convs, conv)
		}
	}
	slices.Sort(convs)
	return convs
}
