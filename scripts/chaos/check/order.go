package check

import "math"

// checkRealTime: when a message was known to be stored before another was sent, it stands
// before it. One walk along each conversation: what is known to be stored at t must not
// stand behind something that was sent after t.
func (m *model) checkRealTime() {
	for _, rows := range m.rows.byConv {
		latest, of := int64(math.MinInt64), int32(none) // the latest first send so far
		for _, at := range rows {
			e := &m.entries[at]
			if e.msg == none {
				continue
			}
			g := &m.messages[e.msg]
			if g.stored < latest {
				m.tell(RealTime, m.sentOr(e), subject{keys: []int32{m.messages[of].send}, msgs: []int32{of, e.msg}},
					"%s/%d %s was known to be stored %s before %s at seq %d was sent", m.convs.name(e.conv), e.seq,
					m.label(e.msg), span(latest-g.stored), m.label(of), m.messages[of].seq)
			}
			if t := m.sentAt(e.msg); t != never && t > latest {
				latest, of = t, e.msg
			}
		}
	}
}

// lane is something whose sends must stand in order: a device between two crashes, or a
// connection, in one conversation.
type lane struct{ of, era, conv int32 }

// checkSenderOrder: what a device sends stands in the order of the first sends, also over
// several lives, since an outbox is handed on in order. A crash ends that: what the next
// life does not know any more may still be on its way and overtake nothing or be
// overtaken. What one connection carried first stands in the order in which it did.
func (m *model) checkSenderOrder() {
	eras := m.eras()
	free := m.repeatedElsewhere(eras)
	highest := map[lane]int32{} // the message with the highest seq
	put := make([]bool, len(m.messages))
	told := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		if e.msg == none {
			continue
		}
		g := &m.messages[e.msg]
		var l lane
		switch {
		case e.kind == kSend && g.send == int32(i):
			l = lane{m.lives[e.life].dev, eras[e.life], g.conv}
		case e.kind == kPut && !put[e.msg] && e.conn != none:
			put[e.msg] = true
			l = lane{e.conn, none, g.conv}
		default:
			continue
		}
		if g.conv == none || free[e.msg] {
			continue
		}
		before, ok := highest[l]
		if !ok || m.messages[before].seq <= g.seq {
			highest[l] = e.msg
			continue
		}
		if !told[e.msg] {
			told[e.msg] = true
			m.tell(SenderOrder, m.sentOr(e), subject{keys: []int32{int32(i)}, msgs: []int32{before, e.msg}},
				"%s sent %s after %s, but seq %d stands before %d in %s", m.devName(e.life), m.label(e.msg), m.label(before),
				g.seq, m.messages[before].seq, m.convs.name(g.conv))
		}
	}
}

// eras numbers the times between the crashes of a device, by life.
func (m *model) eras() []int32 {
	eras := make([]int32, len(m.lives))
	for _, d := range m.devices {
		era := int32(0)
		for _, l := range d.lives {
			eras[l] = era
			if m.lives[l].crashed {
				era++
			}
		}
	}
	return eras
}

// repeatedElsewhere tells which messages were sent again by another device, or after a
// crash, while nobody knew whether they are stored: which of the sends stored them, and
// so what they stand behind, is open.
func (m *model) repeatedElsewhere(eras []int32) []bool {
	free := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		if e.kind != kSend || e.msg == none || e.is(fReuse) {
			continue
		}
		g := &m.messages[e.msg]
		first := m.entries[g.send].life
		if e.t < g.stored && (m.lives[e.life].dev != m.lives[first].dev || eras[e.life] != eras[first]) {
			free[e.msg] = true
		}
	}
	return free
}
