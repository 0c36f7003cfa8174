package check

import (
	"cmp"
	"slices"
)

// table is the final history.
type table struct {
	entries []int32 // all Row entries, by conversation, seq, and then as they were read
	reads   []int32 // all Read entries
	byConv  [][]int32
}

// conv returns the rows of a conversation by seq, one for each seq.
func (t *table) conv(conv int32) []int32 {
	if conv < 0 || int(conv) >= len(t.byConv) {
		return nil
	}
	return t.byConv[conv]
}

// place sorts the final history and tells each message where it stands there.
func (m *model) place() {
	t := &m.rows
	slices.SortFunc(t.entries, func(a, b int32) int {
		x, y := &m.entries[a], &m.entries[b]
		return cmp.Or(cmp.Compare(x.conv, y.conv), cmp.Compare(x.seq, y.seq), cmp.Compare(a, b))
	})
	t.byConv = make([][]int32, len(m.convs.names))
	for _, at := range t.entries {
		e := &m.entries[at]
		if e.conv == none {
			continue
		}
		rows := t.byConv[e.conv]
		if n := len(rows); n == 0 || m.entries[rows[n-1]].seq != e.seq {
			t.byConv[e.conv] = append(rows, at)
		}
		if e.msg == none {
			continue
		}
		if g := &m.messages[e.msg]; g.conv == none {
			g.conv, g.seq = e.conv, e.seq
		}
	}
}

// row returns the row at a place; nil when there is none.
func (m *model) row(conv int32, seq int64) *entry {
	rows := m.rows.conv(conv)
	if i := seq - 1; i >= 0 && i < int64(len(rows)) && m.entries[rows[i]].seq == seq {
		return &m.entries[rows[i]] // always, when nothing is missing
	}
	i, ok := slices.BinarySearchFunc(rows, seq, func(at int32, seq int64) int { return cmp.Compare(m.entries[at].seq, seq) })
	if !ok {
		return nil
	}
	return &m.entries[rows[i]]
}

// lastSeq returns the last seq of a conversation in final history, 0 when it is empty.
func (m *model) lastSeq(conv int32) int64 {
	if rows := m.rows.conv(conv); len(rows) > 0 {
		return m.entries[rows[len(rows)-1]].seq
	}
	return 0
}

// checkLost looks at everything that says where a message is stored.
func (m *model) checkLost() {
	lost := make([]bool, len(m.messages)) // a message is reported once, however many saw it
	moved := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		if e.msg == none || e.kind != kAck && e.kind != kWire && e.kind != kEvent {
			continue
		}
		g := &m.messages[e.msg]
		switch {
		case g.conv == none && e.kind != kEvent: // an event of what is not in history is the channel's
			if !lost[e.msg] {
				lost[e.msg] = true
				m.tell(Lost, m.sentOr(e), about(e.msg, int32(i)), "%s was %s as %s/%d and is not in final history",
					m.label(e.msg), verb(e.kind), m.convs.name(e.conv), e.seq)
			}
		case g.conv != none && (g.conv != e.conv || g.seq != e.seq) && e.kind != kEvent:
			if !moved[e.msg] {
				moved[e.msg] = true
				m.tell(Duplicated, m.sentOr(e), about(e.msg, int32(i)), "%s was %s as %s/%d and is in final history as %s/%d",
					m.label(e.msg), verb(e.kind), m.convs.name(e.conv), e.seq, m.convs.name(g.conv), g.seq)
			}
		}
	}
}

func verb(k kind) string {
	if k == kAck {
		return "acknowledged"
	}
	return "delivered"
}

// sentOr is when the message of an entry was first sent, or the time of the entry.
func (m *model) sentOr(e *entry) int64 {
	if e.msg != none {
		if t := m.sentAt(e.msg); t != never {
			return t
		}
	}
	return e.t
}

// checkContent looks for what was not sent so: in final history and on the wire. What an
// event channel shows is compared with history itself.
func (m *model) checkContent() {
	told := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		if e.kind != kRow && e.kind != kWire {
			continue
		}
		if e.msg == none {
			m.tell(Foreign, e.t, subject{keys: []int32{int32(i)}}, "%s/%d has no sender or no clientMsgId", m.convs.name(e.conv), e.seq)
			continue
		}
		g := &m.messages[e.msg]
		if told[e.msg] {
			continue
		}
		switch {
		case !g.sent():
			told[e.msg] = true
			m.tell(Foreign, e.t, about(e.msg, int32(i)), "%s is at %s/%d, but was never sent", m.label(e.msg), m.convs.name(e.conv), e.seq)
		case e.sameAs(&m.entries[g.send]):
		case g.reuse != none && e.sameAs(&m.entries[g.reuse]):
			told[e.msg] = true
			m.tell(Reuse, m.sentAt(e.msg), about(e.msg, g.send, g.reuse, int32(i)),
				"%s is at %s/%d with the body of a later send under the same clientMsgId", m.label(e.msg), m.convs.name(e.conv), e.seq)
		default:
			told[e.msg] = true
			m.tell(Foreign, m.sentAt(e.msg), about(e.msg, g.send, int32(i)),
				"%s is at %s/%d with another receiver or body than it was sent with", m.label(e.msg), m.convs.name(e.conv), e.seq)
		}
	}
}

// checkPlaces looks for places with two messages and messages with two places in final
// history. Each reader has rows of its own; they must be the same.
func (m *model) checkPlaces() {
	var first *entry // of the same place
	var firstAt int32
	users := map[int32]bool{} // who read that place
	for _, at := range m.rows.entries {
		e := &m.entries[at]
		if first == nil || first.conv != e.conv || first.seq != e.seq {
			first, firstAt = e, at
			clear(users)
		}
		if g := &m.messages[max(e.msg, 0)]; e.msg != none && (g.conv != e.conv || g.seq != e.seq) {
			m.tell(Duplicated, m.sentOr(e), about(e.msg, at), "%s is in final history as %s/%d and as %s/%d",
				m.label(e.msg), m.convs.name(g.conv), g.seq, m.convs.name(e.conv), e.seq)
		}
		switch {
		case first.msg != e.msg:
			m.tell(Duplicated, m.sentOr(e), subject{keys: []int32{firstAt, at}, msgs: []int32{first.msg, e.msg}},
				"%s/%d is %s for one reader and %s for another", m.convs.name(e.conv), e.seq, m.label(first.msg), m.label(e.msg))
		case !e.sameAs(first) && e.msg != none && m.messages[e.msg].sent() && first.sameAs(&m.entries[m.messages[e.msg].send]):
			// checkContent tells it of the one that differs from what was sent
		case users[e.user]:
			m.tell(Duplicated, m.sentOr(e), subject{keys: []int32{firstAt, at}, msgs: []int32{e.msg}},
				"%s read %s/%d twice", m.users.name(e.user), m.convs.name(e.conv), e.seq)
		}
		users[e.user] = true
	}
}

// reading is what one member read of a conversation.
type reading struct{ conv, user int32 }

// checkGaps looks for numbers that are missing, and for conversations that were read
// differently, or by nobody.
func (m *model) checkGaps() {
	for conv := range m.rows.byConv {
		m.checkNumbers(int32(conv))
	}
	rows := map[reading]int64{}
	for _, at := range m.rows.entries {
		e := &m.entries[at]
		rows[reading{e.conv, e.user}]++
	}
	read := make([]bool, len(m.convs.names))
	readers := map[reading]bool{}
	for _, at := range m.rows.reads {
		e := &m.entries[at]
		if e.conv == none {
			continue
		}
		read[e.conv] = true
		readers[reading{e.conv, e.user}] = true
		n := rows[reading{e.conv, e.user}]
		delete(rows, reading{e.conv, e.user})
		if all := int64(len(m.rows.conv(e.conv))); n != e.seq || n != all {
			m.tell(Gap, e.t, subject{keys: []int32{at}}, "%s read %d rows of %s, told %d, and all readers together have %d",
				m.users.name(e.user), n, m.convs.name(e.conv), e.seq, all)
		}
	}
	for user, convs := range m.memberships() {
		for _, conv := range convs {
			if read[conv] && !readers[reading{conv, user}] && m.reads(user) {
				m.tell(Gap, m.last, subject{}, "%s did not find %s among the conversations, and is a member", m.users.name(user), m.convs.name(conv))
			}
		}
	}
	for r := range rows {
		m.tell(Gap, m.last, subject{}, "%s began to read %s and did not end", m.users.name(r.user), m.convs.name(r.conv))
	}
	for i := range m.entries {
		e := &m.entries[i]
		if (e.kind == kAck || e.kind == kWire || e.kind == kEvent) && e.conv != none && !read[e.conv] {
			read[e.conv] = true
			m.tell(Gap, e.t, subject{keys: []int32{int32(i)}}, "nobody read %s at the end", m.convs.name(e.conv))
		}
	}
}

// reads reports whether a user has read history at all: only users with a device do.
func (m *model) reads(user int32) bool {
	return slices.ContainsFunc(m.devices, func(d device) bool { return d.user == user })
}

func (m *model) checkNumbers(conv int32) {
	next := int64(1)
	for _, at := range m.rows.conv(conv) {
		e := &m.entries[at]
		if e.seq != next {
			m.tell(Gap, m.sentOr(e), subject{keys: []int32{at}, msgs: []int32{e.msg}}, "%s has no rows %d to %d",
				m.convs.name(conv), next, e.seq-1)
		}
		next = e.seq + 1
	}
}

// checkRights looks for messages that came to a third person.
func (m *model) checkRights() {
	for i := range m.entries {
		e := &m.entries[i]
		user := e.user
		switch e.kind {
		case kWire, kEvent:
			user = m.userOf(e.life)
		case kRow:
		default:
			continue
		}
		if e.msg == none || user == e.to || user == m.messages[e.msg].sender {
			continue
		}
		m.tell(Rights, m.sentOr(e), about(e.msg, int32(i)), "%s received %s, which is for %s",
			m.users.name(user), m.label(e.msg), m.users.name(e.to))
	}
}
