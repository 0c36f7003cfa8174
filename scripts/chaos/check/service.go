package check

import (
	"cmp"
	"slices"
	"time"
)

// leadIn is how long before a fault a message may be sent and still tell of its outage.
const leadIn = 2 * time.Second

// outage is what a fault did to the sends around it.
type outage struct {
	longest int64 // the longest that a send waited for its answer, from the fault on
	judged  int64 // the longest that a sender with something to be answered heard nothing, from when service was due
	worst   int32 // the message that was answered then
}

// silence is how long one sender waited for the first answer after service was due. That
// what piled up meanwhile is answered after it is not an outage: the limits of each send
// (Resolve) and of the whole (Drained) bound it.
type silence struct {
	since, until int64
	first        int32 // the message answered first
}

// sentInOrder lists what tells of outages, by the time of the first send: not what slow
// devices sent, which see their answers late, nor what is excused.
func (m *model) sentInOrder() []int32 {
	var msgs []int32
	for i := range m.messages {
		g := &m.messages[i]
		if g.sent() && !m.lives[m.entries[g.send].life].slow && !m.excused(g) {
			msgs = append(msgs, int32(i))
		}
	}
	slices.SortFunc(msgs, func(a, b int32) int { return cmp.Compare(m.messages[a].send, m.messages[b].send) })
	return msgs
}

// faultEnd is when the next fault begins, or the run is quiet.
func (m *model) faultEnd(i int) int64 {
	if i+1 < len(m.faults) {
		return m.faults[i+1].from
	}
	return min(m.quiet, m.last+1)
}

// due is when service is expected to begin to come back after fault i: at once when the
// thing does not come back by itself, else when it is healed. Another fault that is at
// work before service was to be back puts that off, to its beginning or its heal likewise.
func (m *model) due(i int) int64 {
	begins := func(f *fault) int64 {
		if f.kill {
			return f.from
		}
		return min(f.heal, m.last)
	}
	due := begins(&m.faults[i])
	for j := range m.faults { // in order: each may put it off, and so bring the next one into it
		if g := &m.faults[j]; g.from <= due+int64(m.limits.Service) {
			due = max(due, begins(g))
		}
	}
	return due
}

// outages measures every fault by the messages that were first sent from shortly before
// it until the next one. Waiting for a device that was off is nobody's outage.
func (m *model) outages() []outage {
	msgs := m.sentInOrder()
	all := make([]outage, len(m.faults))
	for i := range m.faults {
		o := outage{worst: none}
		silent := map[int32]*silence{} // by sender
		from, end, due := m.faults[i].from, m.faultEnd(i), m.due(i)
		k, _ := slices.BinarySearchFunc(msgs, from-int64(leadIn), func(msg int32, t int64) int { return cmp.Compare(m.sentAt(msg), t) })
		for ; k < len(msgs) && m.sentAt(msgs[k]) < end; k++ {
			g := &m.messages[msgs[k]]
			sent, answer := m.sentAt(msgs[k]), min(g.resolved, m.last)
			if answer < from || m.lifeEnd(m.entries[g.send].life) < answer {
				continue
			}
			o.longest = max(o.longest, answer-max(sent, from))
			if answer <= due {
				continue
			}
			w := silent[g.sender]
			if w == nil {
				w = &silence{since: never, until: never}
				silent[g.sender] = w
			}
			w.since = min(w.since, max(sent, due))
			if answer < w.until {
				w.until, w.first = answer, msgs[k]
			}
		}
		for _, w := range silent {
			if d := w.until - w.since; d > o.judged {
				o.judged, o.worst = d, w.first
			}
		}
		all[i] = o
	}
	return all
}

// checkService: sends are answered again soon after each fault.
func (m *model) checkService(outages []outage) {
	for i, o := range outages {
		if o.judged <= int64(m.limits.Service) {
			continue
		}
		f := &m.faults[i]
		m.tell(Service, f.from, subject{keys: []int32{f.entry, m.messages[o.worst].send}, msgs: []int32{o.worst}},
			"%s had its answer %s after service was due again after fault %d (%s), and its sender none before", m.label(o.worst), span(o.judged), f.number, f.name)
	}
}

// during returns the latest fault that began before t, none when there is none.
func (m *model) during(t int64) int {
	i, _ := slices.BinarySearchFunc(m.faults, t, func(f fault, t int64) int {
		if f.from <= t {
			return -1
		}
		return 1
	})
	return i - 1
}
