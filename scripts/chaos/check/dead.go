package check

// checkDead: what can never succeed is in the dead stream in time, and nothing else is.
func (m *model) checkDead() {
	found := map[int32]int32{} // cid → the first Dead
	for _, d := range m.deads {
		if _, ok := found[d.cid]; !ok {
			found[d.cid] = d.entry
		}
	}
	poisons := map[int32]bool{}
	for _, p := range m.poisons {
		poisons[p.cid] = true
		m.checkPoison(p, found)
	}
	for _, d := range m.deads {
		if !poisons[d.cid] {
			m.tell(DeadSend, m.entries[d.entry].t, subject{keys: []int32{d.entry}, msgs: m.ofCID(d.cid)},
				"%s is in the dead stream and was no poison", m.cids.name(d.cid))
		}
	}
}

// ofCID returns the messages with a cid, of any sender.
func (m *model) ofCID(cid int32) []int32 {
	var msgs []int32
	for i := range m.messages {
		if m.messages[i].cid == cid {
			msgs = append(msgs, int32(i))
		}
	}
	return msgs
}

// checkPoison judges one. Faults put off when it is due, for twice the time in which service
// must be back at most. What waits in a lane, and the dead stream, go with all other data
// of NATS: what was put in before that, and was not due yet, may never be found.
func (m *model) checkPoison(p letter, found map[int32]int32) {
	e := &m.entries[p.entry]
	limit := int64(m.limits.Dead)
	if e.is(fKill) {
		limit = int64(m.limits.KillerDead)
	}
	due := min(m.counts(e.t, limit), e.t+2*int64(m.limits.Service)) + limit
	at, ok := found[p.cid]
	switch {
	case ok && m.entries[at].t <= due:
	case ok:
		m.tell(Poisoned, e.t, subject{keys: []int32{p.entry, at}}, "poison %s was dead after %s", m.cids.name(p.cid), span(m.entries[at].t-e.t))
	case m.wipedBetween(p.entry, due):
	case m.last > due || m.done:
		m.tell(Poisoned, e.t, subject{keys: []int32{p.entry}}, "poison %s was never found dead", m.cids.name(p.cid))
	}
}

func (m *model) wipedBetween(at int32, due int64) bool {
	for _, w := range m.wiped {
		if w > at && m.entries[w].t <= due {
			return true
		}
	}
	return false
}

// counts is when a limit that began at t begins to count: not before service is due to be
// back after any fault that is at work at a time within the limit. A fault that does not
// come back by itself (kill) ends when it is healed, or at once when no heal is on record;
// any other that is never healed is left out, and reported as such.
func (m *model) counts(t, limit int64) int64 {
	from := t
	for i := range m.faults { // in order: each may put the limit off, and so bring the next one into it
		f := &m.faults[i]
		if f.from > from+limit {
			break
		}
		if back, ok := m.back(f); ok {
			from = max(from, back)
		}
	}
	return from
}

// back is when service is due to be back after a fault.
func (m *model) back(f *fault) (t int64, ok bool) {
	end := f.heal
	if end == never {
		if !f.kill {
			return 0, false
		}
		end = f.from
	}
	return end + int64(m.limits.Service), true
}

// answerDue is when the answer to what was put at t must be there. No single fault puts
// that off. Faults that come while service is not back after another do: the limit counts
// from the end of the last of them.
func (m *model) answerDue(t int64) int64 {
	limit := int64(m.limits.Resolve)
	from, alone := t, true
	for i := range m.faults {
		f := &m.faults[i]
		if f.from > from+limit {
			break
		}
		back, ok := m.back(f)
		switch {
		case !ok || back < t:
		case alone:
			alone = false
		default:
			from = max(from, back-int64(m.limits.Service))
		}
	}
	return from + limit
}

// checkDrained: soon after the end of everything nothing waits any more.
func (m *model) checkDrained() {
	if m.quiet == never {
		m.tell(Drained, m.last, subject{}, "the run is done and was never quiet")
		return
	}
	first, lowest := int32(none), int32(none)
	for i := range m.entries {
		e := &m.entries[i]
		switch {
		case e.kind == kQuiet:
			first = int32(i)
		case e.kind == kLag && e.t >= m.quiet && e.t <= m.quiet+int64(m.limits.Drained):
			if lowest == none || e.seq < m.entries[lowest].seq {
				lowest = int32(i)
			}
		}
	}
	switch {
	case lowest == none:
		m.tell(Drained, m.quiet, subject{keys: []int32{first}}, "nobody looked at the uplink within %s of the end of all sends", m.limits.Drained)
	case m.entries[lowest].seq != 0:
		m.tell(Drained, m.quiet, subject{keys: []int32{first, lowest}}, "%d messages wait in the uplink, and never fewer within %s of the end of all sends",
			m.entries[lowest].seq, m.limits.Drained)
	}
}

// checkHealed: a run that is done has healed what does not come back by itself.
func (m *model) checkHealed() {
	for i := range m.faults {
		if f := &m.faults[i]; f.heal == never && !f.kill {
			m.tell(Malformed, f.from, subject{keys: []int32{f.entry}}, "fault %d (%s) was never healed", f.number, f.name)
		}
	}
}
