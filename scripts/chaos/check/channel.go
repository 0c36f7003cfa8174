package check

import (
	"cmp"
	"slices"
)

// view is one conversation as one life shows it; for a mark, as one device does.
type view struct{ of, conv int32 }

// mark is up to where a device has shown a conversation, in any of its lives.
type mark struct {
	seq   int64
	fresh int // how many lives without a state the device had had by then
}

// channels follows the event channels through a history.
type channels struct {
	m     *model
	shown map[view]int64    // last seq that a life showed
	convs map[int32][]int32 // what a life showed, by life
	marks map[view]mark
	fresh map[int32]int // lives without a state, by device
}

// checkChannels: each event channel shows what history holds behind the cursors that its
// life began with, in order, once. Between two lives nothing is left out; something is
// shown again only when the earlier one was cut off.
func (m *model) checkChannels() {
	c := &channels{m: m, shown: map[view]int64{}, convs: map[int32][]int32{}, marks: map[view]mark{}, fresh: map[int32]int{}}
	for i := range m.entries {
		switch e := &m.entries[i]; {
		case e.life == none:
		case e.kind == kBegin:
			c.begin(int32(i))
		case e.kind == kEvent:
			c.event(int32(i))
		case e.kind == kSkipped:
			m.tell(SkippedRows, e.t, subject{keys: []int32{int32(i)}, lives: []int32{e.life}},
				"%s was told that history no longer holds %s/%d, but nothing is ever removed", m.devName(e.life), m.convs.name(e.conv), e.seq)
			c.advance(e, int64(e.body))
		}
	}
	if m.done {
		c.checkEnds()
	}
}

// start is the seq behind which a life begins to show a conversation; false: anywhere.
func (l *life) start(conv int32) (int64, bool) {
	seq, ok := l.cursors[conv]
	return seq, ok || !l.fresh
}

// position is the last seq that a life showed or began behind; false: it is not known.
func (c *channels) position(life, conv int32) (int64, bool) {
	if seq, ok := c.shown[view{life, conv}]; ok {
		return seq, true
	}
	return c.m.lives[life].start(conv)
}

func (c *channels) advance(e *entry, seq int64) {
	v := view{e.life, e.conv}
	last, ok := c.shown[v]
	if !ok {
		c.convs[e.life] = append(c.convs[e.life], e.conv)
	}
	c.shown[v] = max(last, seq)
	dev := c.m.lives[e.life].dev
	c.raise(dev, e.conv, seq)
}

// raise moves the mark of a device up.
func (c *channels) raise(dev, conv int32, seq int64) {
	k := view{dev, conv}
	if old := c.marks[k]; old.fresh == c.fresh[dev] {
		seq = max(seq, old.seq)
	}
	c.marks[k] = mark{seq, c.fresh[dev]}
}

// begin compares the cursors of a life with what its device showed before.
func (c *channels) begin(at int32) {
	m := c.m
	id := m.entries[at].life
	l := &m.lives[id]
	before := m.before(id)
	if l.fresh {
		c.fresh[l.dev]++
		return
	}
	if before != none {
		c.checkAhead(at, l)
		if !m.lives[before].crashed {
			c.checkBehind(at, l, before)
		}
	}
	for conv, seq := range l.cursors {
		c.raise(l.dev, conv, seq)
	}
}

// checkAhead: cursors are not ahead of what was shown. A device that once began without
// a state may have cursors where it never showed anything: it began there.
func (c *channels) checkAhead(at int32, l *life) {
	for conv, seq := range l.cursors {
		shown, ok := c.marks[view{l.dev, conv}]
		if ok && shown.fresh == c.fresh[l.dev] && seq > shown.seq || !ok && seq > 0 && c.fresh[l.dev] == 0 {
			c.m.tell(Channel, c.m.entries[at].t, c.rows(conv, shown.seq+1, at), "life %d of %s begins behind %s/%d, but only %d was shown",
				l.number, c.m.devNames.name(l.dev), c.m.convs.name(conv), seq, shown.seq)
		}
	}
}

// checkBehind: after a life that ended well nothing is shown again.
func (c *channels) checkBehind(at int32, l *life, before int32) {
	convs := slices.Clone(c.convs[before])
	for conv := range c.m.lives[before].cursors {
		if _, ok := c.shown[view{before, conv}]; !ok {
			convs = append(convs, conv)
		}
	}
	for _, conv := range convs {
		shown, _ := c.position(before, conv)
		if seq := l.cursors[conv]; seq < shown {
			c.m.tell(Channel, c.m.entries[at].t, c.rows(conv, seq+1, at), "life %d of %s begins behind %s/%d, but %d was shown by the life before, which ended well",
				l.number, c.m.devNames.name(l.dev), c.m.convs.name(conv), seq, shown)
		}
	}
}

// rows makes the subject of a violation at an entry about a row of history.
func (c *channels) rows(conv int32, seq int64, at int32) subject {
	s := subject{keys: []int32{at}, lives: []int32{c.m.entries[at].life}}
	if r := c.m.row(conv, seq); r != nil && r.msg != none {
		s.msgs = []int32{r.msg}
	}
	return s
}

// event checks one event.
func (c *channels) event(at int32) {
	m := c.m
	e := &m.entries[at]
	last, known := c.position(e.life, e.conv)
	switch {
	case !known:
		c.firstOfFresh(at)
	case e.seq <= last:
		m.tell(Channel, m.sentOr(e), about(e.msg, at), "%s showed %s/%d again, or out of order: it was at %d",
			m.devName(e.life), m.convs.name(e.conv), e.seq, last)
	case e.seq > last+1:
		s := c.rows(e.conv, last+1, at)
		s.msgs = append(s.msgs, e.msg)
		m.tell(Channel, m.sentOr(e), s, "%s showed %s/%d after %d: something was left out",
			m.devName(e.life), m.convs.name(e.conv), e.seq, last)
	}
	c.advance(e, e.seq)
	if !m.done {
		return
	}
	switch r := m.row(e.conv, e.seq); {
	case r == nil:
		m.tell(Channel, m.sentOr(e), about(e.msg, at), "%s showed %s/%d, which final history does not hold",
			m.devName(e.life), m.convs.name(e.conv), e.seq)
	case !r.sameAs(e):
		s := about(e.msg, at)
		s.msgs = append(s.msgs, r.msg)
		m.tell(Channel, m.sentOr(e), s, "%s showed as %s/%d something else than final history holds",
			m.devName(e.life), m.convs.name(e.conv), e.seq)
	}
}

// firstOfFresh: a life without a state begins at its baseline, and that is older than the
// word that it has everything. So what was sent after that word cannot be before it.
func (c *channels) firstOfFresh(at int32) {
	m := c.m
	e := &m.entries[at]
	l := &m.lives[e.life]
	r := m.row(e.conv, e.seq-1)
	if r == nil || l.synced == never {
		return
	}
	if sent := m.sentOr(r); r.msg != none && m.messages[r.msg].sent() && sent > l.synced {
		m.tell(Channel, sent, about(r.msg, at), "%s began with %s/%d, but what stands before it was sent after it was synced",
			m.devName(e.life), m.convs.name(e.conv), e.seq)
	}
}

// checkEnds: the last life of each device has shown everything, if it lived to the end.
func (c *channels) checkEnds() {
	m := c.m
	convs := m.memberships()
	for _, d := range m.devices {
		if len(d.lives) == 0 {
			continue
		}
		id := d.lives[len(d.lives)-1]
		if !m.livedToTheEnd(id) {
			continue
		}
		for _, conv := range convs[d.user] {
			c.checkEnd(id, conv)
		}
	}
}

// livedToTheEnd reports whether a life was still there when everything was sent and
// settled: it says so itself with an Outbox record.
func (m *model) livedToTheEnd(id int32) bool {
	l := &m.lives[id]
	switch {
	case l.end == none:
		return true
	case l.outbox != none:
		return l.outbox < l.end
	default:
		return !l.crashed && m.entries[l.end].t > m.quiet
	}
}

func (c *channels) checkEnd(id, conv int32) {
	m := c.m
	l := &m.lives[id]
	want := m.lastSeq(conv)
	last, known := c.position(id, conv)
	at := l.begin
	if l.end != none {
		at = l.end
	}
	s := subject{lives: []int32{id}}
	if at != none {
		s = c.rows(conv, last+1, at)
	}
	switch {
	case known && last < want:
		m.tell(Channel, m.last, s, "%s showed %s up to %d, and final history goes to %d", m.devName(id), m.convs.name(conv), last, want)
	case !known && l.synced != never:
		for _, row := range m.rows.conv(conv) {
			e := &m.entries[row]
			if e.msg == none || !m.messages[e.msg].sent() || m.sentAt(e.msg) <= l.synced {
				continue
			}
			m.tell(Channel, m.last, about(e.msg, row), "%s showed nothing of %s, but %d was sent after it was synced",
				m.devName(id), m.convs.name(conv), e.seq)
			return
		}
	}
}

// memberships lists the conversations of each user, as final history shows them.
func (m *model) memberships() map[int32][]int32 {
	convs := map[int32][]int32{}
	seen := map[view]bool{}
	for conv, rows := range m.rows.byConv {
		for _, at := range rows {
			e := &m.entries[at]
			if e.msg == none {
				continue
			}
			for _, user := range [2]int32{m.messages[e.msg].sender, e.to} {
				if k := (view{user, int32(conv)}); !seen[k] {
					seen[k] = true
					convs[user] = append(convs[user], int32(conv))
				}
			}
		}
	}
	for _, all := range convs {
		slices.SortFunc(all, cmp.Compare)
	}
	return convs
}
