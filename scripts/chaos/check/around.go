package check

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// maxAround is how many records a violation shows.
const maxAround = 15

// subject is what a violation is about. Indices that are none are ignored.
type subject struct {
	keys  []int32 // entries that are shown in any case
	msgs  []int32
	lives []int32 // their Begin, End and connections
	conns []int32 // their Open, Close and Resync
}

func about(msg int32, keys ...int32) subject { return subject{keys: keys, msgs: []int32{msg}} }

// reporter collects violations. Of each rule it keeps the first ones, and the times of all.
type reporter struct {
	shown    int
	found    []Violation
	subjects []subject // of found
	times    map[Rule][]int64
}

func newReporter(shown int) *reporter {
	return &reporter{shown: shown, times: map[Rule][]int64{}}
}

// add reports a violation. t is when what it is about began, such as the first send of
// the message: it tells to which fault it is put down.
func (r *reporter) add(rule Rule, t int64, s subject, format string, args ...any) {
	r.times[rule] = append(r.times[rule], t)
	if len(r.times[rule]) > r.shown {
		return
	}
	r.found = append(r.found, Violation{Rule: rule, At: time.Duration(t), What: fmt.Sprintf(format, args...)})
	r.subjects = append(r.subjects, s)
}

func (m *model) tell(rule Rule, t int64, s subject, format string, args ...any) {
	m.report.add(rule, t, s, format, args...)
}

// label names a message for a reader.
func (m *model) label(msg int32) string {
	if msg == none {
		return "(no message)"
	}
	g := &m.messages[msg]
	return fmt.Sprintf("%s of %s", m.cids.name(g.cid), m.users.name(g.sender))
}

// span renders nanoseconds.
func span(ns int64) string { return time.Duration(ns).Round(100 * time.Microsecond).String() }

// interest says which violations want to see an entry.
type interest struct {
	msgs, lives, conns map[int32][]int // by index: violations
}

// around finds for each violation the entries to show with it.
func (m *model) around() [][]int32 {
	in := interest{map[int32][]int{}, map[int32][]int{}, map[int32][]int{}}
	for v, s := range m.report.subjects {
		for _, to := range []struct {
			ids []int32
			by  map[int32][]int
		}{{s.msgs, in.msgs}, {s.lives, in.lives}, {s.conns, in.conns}} {
			for _, id := range to.ids {
				if id != none && !slices.Contains(to.by[id], v) {
					to.by[id] = append(to.by[id], v)
				}
			}
		}
	}
	all := make([][]int32, len(m.report.subjects))
	for i := range m.entries {
		for _, v := range in.wants(&m.entries[i]) {
			all[v] = append(all[v], int32(i))
		}
	}
	for v, s := range m.report.subjects {
		all[v] = m.choose(all[v], s.keys)
	}
	return all
}

func (in *interest) wants(e *entry) []int {
	var vs []int
	if e.msg != none {
		vs = in.msgs[e.msg]
	}
	switch e.kind {
	case kOpen, kClose, kResync:
		vs = append(slices.Clip(vs), in.conns[e.conn]...)
		fallthrough
	case kBegin, kEnd, kSynced, kOutbox, kSkipped:
		vs = append(slices.Clip(vs), in.lives[e.life]...)
	}
	return vs
}

// choose keeps the keys and what is next to them in time, in order.
func (m *model) choose(entries, keys []int32) []int32 {
	keys = slices.DeleteFunc(slices.Clone(keys), func(at int32) bool { return at == none })
	distance := func(at int32) int64 {
		d := int64(never)
		for _, k := range keys {
			d = min(d, max(m.entries[at].t-m.entries[k].t, m.entries[k].t-m.entries[at].t))
		}
		return d
	}
	entries = slices.DeleteFunc(entries, func(at int32) bool { return slices.Contains(keys, at) })
	slices.SortStableFunc(entries, func(a, b int32) int { return cmp.Compare(distance(a), distance(b)) })
	entries = append(keys, entries...)
	entries = entries[:min(len(entries), maxAround)]
	slices.Sort(entries)
	return slices.Compact(entries)
}

// illustrate puts the records around each violation, read again from the history.
func (m *model) illustrate(r io.Reader) ([]Violation, error) {
	found, around := m.report.found, m.around()
	wanted := map[int32]history.Record{}
	last := int32(none)
	for _, entries := range around {
		for _, at := range entries {
			wanted[at] = history.Record{}
			last = max(last, at)
		}
	}
	// Not history.Scan: a few records are wanted of millions, and only these are decoded.
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	var raw json.RawMessage
	for n := int32(0); n <= last; n++ {
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("read history again: record %d: %w", n+1, err)
		}
		if _, ok := wanted[n]; !ok {
			continue
		}
		var rec history.Record
		if err := json.Unmarshal(raw, &rec); err != nil {
			return nil, fmt.Errorf("read history again: record %d: %w", n+1, err)
		}
		wanted[n] = rec
	}
	for v, entries := range around {
		for _, at := range entries {
			found[v].Around = append(found[v].Around, wanted[at])
		}
	}
	return found, nil
}
