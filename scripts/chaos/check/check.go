// Package check judges a run of chaos by its history alone (package history): whether
// every promise was kept, whatever was broken meanwhile. It starts nothing and trusts no
// figure of the system; a history can be recorded on one machine and checked on another.
//
// A history is read once into a model that holds what the rules need (model, note), the
// rules walk over that (rows, order, channel, sends, wire, dead, service), and when there
// are violations the history is read once more for the records around them (around).
package check

import (
	"fmt"
	"io"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// Limits are the times within which things must happen. All must be set.
type Limits struct {
	Resolve    time.Duration // a send is answered, or its connection closed
	Service    time.Duration // sends are answered again after a fault
	Drained    time.Duration // nothing waits any more after the end of all sends and faults
	Dead       time.Duration // a poison is in the dead stream
	KillerDead time.Duration // one that kills its worker is
	WireHole   time.Duration // a resumed connection brings what it left out
	Shown      int           // violations of each rule that a report holds; the others are counted
}

// DefaultLimits are the promised ones.
func DefaultLimits() Limits {
	return Limits{Resolve: 20 * time.Second, Service: 15 * time.Second, Drained: time.Minute, Dead: 10 * time.Second,
		KillerDead: 30 * time.Second, WireHole: 30 * time.Second, Shown: 10}
}

// Violation is one case of a broken rule.
type Violation struct {
	Rule   Rule
	At     time.Duration // since the beginning of the run: when what it is about began
	What   string        // one sentence
	Around []history.Record
}

// Report is what a history shows.
type Report struct {
	Run        history.Record // what ran
	Violations []Violation    // the first of each rule
	Counts     map[Rule]int   // all of them
	Stats      Stats
	Faults     []FaultStat
}

// OK reports whether no rule was broken.
func (r *Report) OK() bool { return len(r.Counts) == 0 }

// Check reads a history from its present position to the end, twice when rules were
// broken. An error says that it cannot be read; then there is no report.
func Check(r io.ReadSeeker, l Limits) (*Report, error) {
	start, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("check history: %w", err)
	}
	m := newModel(l)
	if err := m.read(r); err != nil {
		return nil, err
	}
	outages := m.outages()
	m.judge(outages)
	rep := &Report{Run: m.run, Counts: map[Rule]int{}, Stats: m.stats(), Faults: m.faultStats(outages)}
	for rule, times := range m.report.times {
		rep.Counts[rule] = len(times)
	}
	if rep.OK() {
		return rep, nil
	}
	if _, err := r.Seek(start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("check history: %w", err)
	}
	if rep.Violations, err = m.illustrate(r); err != nil {
		return nil, err
	}
	return rep, nil
}

// judge applies the rules. A history that broke off has no end, so what is said of the
// end is not judged.
func (m *model) judge(outages []outage) {
	m.checkContent()
	m.checkRights()
	m.checkChannels()
	m.checkRefused()
	m.checkAnswers()
	m.checkHoles()
	m.checkDead()
	m.checkService(outages)
	if !m.done {
		m.tell(Torn, m.last, subject{keys: []int32{int32(len(m.entries)) - 1}}, "the run broke off: final history was not checked")
		return
	}
	m.checkLost()
	m.checkPlaces()
	m.checkGaps()
	m.checkRealTime()
	m.checkSenderOrder()
	m.checkResolved()
	m.checkDrained()
	m.checkHealed()
}
