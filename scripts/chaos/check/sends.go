package check

// checkRefused: what was refused for ever is not in final history. A refusal that came
// after a send with another body answers that one.
func (m *model) checkRefused() {
	told := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		if e.kind != kNever && e.kind != kRefusal || e.msg == none || told[e.msg] {
			continue
		}
		g := &m.messages[e.msg]
		if g.conv == none || m.answersReuse(int32(i)) {
			continue
		}
		told[e.msg] = true
		m.tell(Refused, m.sentOr(e), about(e.msg, int32(i)), "%s was refused for ever with code %d and is in final history as %s/%d",
			m.label(e.msg), e.code, m.convs.name(g.conv), g.seq)
	}
}

// answersReuse reports whether a refusal came after a send with another body. It is then
// taken for the answer to that one.
func (m *model) answersReuse(refusal int32) bool {
	reuse := m.messages[m.entries[refusal].msg].reuse
	return reuse != none && reuse < refusal
}

// promise is one message at one device.
type promise struct{ dev, msg int32 }

// waiting are the sends of a promise without an answer: one at most of each kind, since
// a client takes no clientMsgId that is in its outbox.
type waiting struct{ plain, reuse int32 } // entries, none

// checkResolved: every send is acknowledged or refused, by any life of its device, until
// shortly after the end of all sends; one with a used clientMsgId and another body is
// refused. What a life that was cut off had not resolved is excused.
func (m *model) checkResolved() {
	open := map[promise]waiting{}
	limit := int64(never)
	if m.quiet != never {
		limit = m.quiet + int64(m.limits.Drained)
	}
	for i := range m.entries {
		e := &m.entries[i]
		if e.msg == none || e.life == none || e.t > limit {
			continue
		}
		p := promise{m.lives[e.life].dev, e.msg}
		switch e.kind {
		case kSend:
			w, ok := open[p]
			if !ok {
				w = waiting{none, none}
			}
			if e.is(fReuse) {
				w.reuse = int32(i)
			} else {
				w.plain = int32(i)
			}
			open[p] = w
		case kAck, kRefusal:
			if w, ok := open[p]; ok {
				m.answered(open, p, w, int32(i))
			}
		}
	}
	m.leftOpen(open)
}

// answered takes an Ack or a Refusal off what waits. An acknowledgement is of the send
// that may be acknowledged, if there is one, and so the other way round. A life after a
// crash may have the first send in its older state, and know nothing of the other.
func (m *model) answered(open map[promise]waiting, p promise, w waiting, at int32) {
	ack := m.entries[at].kind == kAck
	switch {
	case ack && w.plain != none:
		w.plain = none
	case ack && w.reuse != none && m.forgotten(w.reuse, at):
		w.reuse = none
	case ack && w.reuse != none:
		m.tell(Reuse, m.entries[w.reuse].t, about(p.msg, w.reuse, at),
			"%s was acknowledged for a second body under the same clientMsgId", m.label(p.msg))
		w.reuse = none
	case !ack && w.reuse != none:
		w.reuse = none
	case !ack:
		w.plain = none
	}
	if w.plain == none && w.reuse == none {
		delete(open, p)
	} else {
		open[p] = w
	}
}

// forgotten reports whether the life that made a send was cut off before a later one.
func (m *model) forgotten(send, later int32) bool {
	was := m.entries[send].life
	return was != m.entries[later].life && m.lives[was].crashed
}

// leftOpen reports what has no answer, in the order of the sends.
func (m *model) leftOpen(open map[promise]waiting) {
	for i := range m.entries {
		e := &m.entries[i]
		if e.kind != kSend || e.msg == none || m.lives[e.life].crashed {
			continue
		}
		switch w, ok := open[promise{m.lives[e.life].dev, e.msg}]; {
		case !ok: // answered
		case w.plain == int32(i):
			m.tell(Unresolved, e.t, about(e.msg, int32(i)), "%s was neither acknowledged nor refused", m.label(e.msg))
		case w.reuse == int32(i):
			m.tell(Reuse, e.t, about(e.msg, int32(i)), "%s with another body under the same clientMsgId was not refused", m.label(e.msg))
		}
	}
	for _, l := range m.lives {
		if l.outbox != none && m.entries[l.outbox].seq != 0 {
			m.tell(Unresolved, m.entries[l.outbox].t, subject{keys: []int32{l.outbox}}, "%s has %d unresolved sends at the end",
				m.devNames.name(l.dev), m.entries[l.outbox].seq)
		}
	}
}
