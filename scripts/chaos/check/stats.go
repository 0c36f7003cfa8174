package check

import (
	"slices"
	"time"
)

// Stats are the figures of a history.
type Stats struct {
	Records, Devices, Lives int
	Sends                   Sends
	Connections             Connections
	Dead                    DeadStats
	Ack                     Latency // from the first send to the first word of its being stored at a device of the sender
	Live                    Latency // from the first send to the first device of the receiver
	Took                    time.Duration
}

// Sends count messages. Attempted = Stored + Refused + Excused + Missing.
type Sends struct {
	Attempted int // different messages that clients sent
	Again     int // repetitions on purpose
	Reused    int // sends with a used clientMsgId and another body
	Acked     int // messages that were acknowledged
	Stored    int // messages in final history
	Refused   int // messages that were refused for ever and are not stored
	Excused   int // messages that a life which was cut off had not resolved, and that are not stored
	Missing   int // anything else: what is lost or unresolved
}

// Connections count logins.
type Connections struct{ Resumed, Anew, Crashes int }

// DeadStats count what can never succeed.
type DeadStats struct{ Poisons, Found int }

// Latency is a distribution of waiting times. N is how many there are.
type Latency struct {
	N             int
	P50, P99, Max time.Duration
}

// FaultStat sums up all faults of one name. Violations are put down to the latest fault
// that began before the first send of their message.
type FaultStat struct {
	Name       string
	Count      int
	Acked      int // messages acknowledged from a fault to the next
	Lost       int
	Duplicated int
	Disordered int
	Outage     time.Duration // the longest that a send waited for its answer, from the fault on
	Judged     time.Duration // the same from when service was due again: what Limits.Service bounds
}

// stats counts.
func (m *model) stats() Stats {
	s := Stats{Records: len(m.entries), Devices: len(m.devices), Lives: len(m.lives), Took: time.Duration(m.last)}
	refused := make([]bool, len(m.messages))
	for i := range m.entries {
		e := &m.entries[i]
		switch {
		case e.kind == kSend && e.is(fReuse):
			s.Sends.Reused++
		case e.kind == kSend && e.is(fAgain):
			s.Sends.Again++
		case e.kind == kOpen && e.is(fResumed):
			s.Connections.Resumed++
		case e.kind == kOpen:
			s.Connections.Anew++
		case (e.kind == kRefusal || e.kind == kNever) && e.msg != none:
			refused[e.msg] = refused[e.msg] || !m.answersReuse(int32(i))
		}
	}
	for i := range m.lives {
		if m.lives[i].crashed {
			s.Connections.Crashes++
		}
	}
	m.countDead(&s.Dead)
	m.countSends(&s, refused)
	return s
}

func (m *model) countDead(s *DeadStats) {
	dead := map[int32]bool{}
	for _, d := range m.deads {
		dead[d.cid] = true
	}
	for _, p := range m.poisons {
		s.Poisons++
		if dead[p.cid] {
			s.Found++
		}
	}
}

func (m *model) countSends(s *Stats, refused []bool) {
	var ack, live []int64
	for i := range m.messages {
		g := &m.messages[i]
		if !g.sent() {
			continue
		}
		s.Sends.Attempted++
		if g.acked != never {
			s.Sends.Acked++
		}
		switch {
		case g.conv != none:
			s.Sends.Stored++
		case refused[i]:
			s.Sends.Refused++
		case m.excused(g):
			s.Sends.Excused++
		default:
			s.Sends.Missing++
		}
		sent := m.sentAt(int32(i))
		if g.acked == never || m.lives[m.entries[g.send].life].slow || m.lifeEnd(m.entries[g.send].life) < g.acked {
			continue // the device did not listen
		}
		ack = append(ack, g.acked-sent)
		if g.delivered != never {
			live = append(live, g.delivered-sent)
		}
	}
	s.Ack, s.Live = latency(ack), latency(live)
}

func latency(ns []int64) Latency {
	if len(ns) == 0 {
		return Latency{}
	}
	slices.Sort(ns)
	at := func(percent int) time.Duration { return time.Duration(ns[(len(ns)-1)*percent/100]) }
	return Latency{N: len(ns), P50: at(50), P99: at(99), Max: at(100)}
}

// faultStats sums the faults up by name, in the order in which the names first came.
func (m *model) faultStats(outages []outage) []FaultStat {
	var all []FaultStat
	index := map[string]int{}
	of := make([]int, len(m.faults))
	for i := range m.faults {
		name := m.faults[i].name
		k, ok := index[name]
		if !ok {
			k = len(all)
			index[name] = k
			all = append(all, FaultStat{Name: name})
		}
		of[i] = k
		all[k].Count++
		all[k].Outage = max(all[k].Outage, time.Duration(outages[i].longest))
		all[k].Judged = max(all[k].Judged, time.Duration(outages[i].judged))
	}
	for i := range m.messages {
		g := &m.messages[i]
		if !g.sent() || g.acked == never || g.acked >= m.quiet {
			continue
		}
		if f := m.during(g.acked); f >= 0 {
			all[of[f]].Acked++
		}
	}
	for rule, field := range map[Rule]func(*FaultStat) *int{
		Lost:        func(s *FaultStat) *int { return &s.Lost },
		Duplicated:  func(s *FaultStat) *int { return &s.Duplicated },
		RealTime:    func(s *FaultStat) *int { return &s.Disordered },
		SenderOrder: func(s *FaultStat) *int { return &s.Disordered },
	} {
		for _, t := range m.report.times[rule] {
			if f := m.during(t); f >= 0 {
				*field(&all[of[f]])++
			}
		}
	}
	return all
}
