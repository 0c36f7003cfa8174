package mongostore

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

// fakeStore is a messages collection in memory with its two unique keys. Several
// appenders, standing for as many processes, may share it.
type fakeStore struct {
	mu    sync.Mutex
	byID  map[string]*storedEntry
	byKey map[string]*storedEntry

	// before is called with each insert, outside the lock; an error ends the insert
	// before anything is stored.
	before func(entries []*entry) error
	// after is called with each insert; an error is what the caller gets, although the
	// documents are stored.
	after func(entries []*entry) error
	reads int // of last
	asked int // inserts
}

type storedEntry struct {
	conv string
	seq  int64
	msg  messaging.NewMessage
	hash hash
}

func newFake() *fakeStore {
	return &fakeStore{byID: map[string]*storedEntry{}, byKey: map[string]*storedEntry{}}
}

func keyOfMessage(m *messaging.NewMessage) string { return m.From.Token() + "/" + m.CID }

// put stores a message as another writer would, and reports which key refused it.
func (f *fakeStore) put(m messaging.NewMessage, seq int64) dupKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.putLocked(m, seq)
}

func (f *fakeStore) putLocked(m messaging.NewMessage, seq int64) dupKey {
	id := messageID(m.Conv, seq)
	if f.byID[id] != nil {
		return dupID
	}
	if f.byKey[keyOfMessage(&m)] != nil {
		return dupTwin
	}
	e := &storedEntry{conv: m.Conv, seq: seq, msg: m, hash: hashOf(m.Body)}
	f.byID[id], f.byKey[keyOfMessage(&m)] = e, e
	return notDup
}

func (f *fakeStore) insert(_ context.Context, entries []*entry, ordered bool) ([]refusal, error) {
	if f.before != nil {
		if err := f.before(entries); err != nil {
			return nil, err
		}
	}
	var out []refusal
	f.mu.Lock()
	f.asked++
	for i, e := range entries {
		dup := f.putLocked(*e.msg, e.seq)
		if string(e.msg.Body) == "poison" {
			delete(f.byID, messageID(e.msg.Conv, e.seq))
			delete(f.byKey, keyOfMessage(e.msg))
			out = append(out, refusal{index: i, reason: "poison"})
		} else if dup != notDup {
			out = append(out, refusal{index: i, dup: dup})
		}
		if ordered && len(out) > 0 {
			break
		}
	}
	f.mu.Unlock()
	if f.after != nil {
		if err := f.after(entries); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fakeStore) orderedMax() int { return 100 }

func (f *fakeStore) last(_ context.Context, conv string, _ int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.lastLocked(conv), nil
}

func (f *fakeStore) lastLocked(conv string) int64 {
	var last int64
	for _, e := range f.byID {
		if e.conv == conv {
			last = max(last, e.seq)
		}
	}
	return last
}

func (f *fakeStore) twins(_ context.Context, refused []*entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range refused {
		if e.dup != dupID {
			f.setTwin(e)
		}
	}
	return nil
}

func (f *fakeStore) recall(_ context.Context, groups []*group) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range groups {
		for _, e := range g.left {
			f.setTwin(e)
		}
	}
	return nil
}

func (f *fakeStore) setTwin(e *entry) {
	if s := f.byKey[keyOfMessage(e.msg)]; s != nil {
		e.twin = &twin{conv: s.conv, seq: s.seq, kind: s.msg.Type, hash: s.hash[:], ts: s.msg.TS}
	}
}

// history returns a conversation's messages, and whether its numbers are 1, 2, 3 …
func (f *fakeStore) history(conv string) (msgs []messaging.NewMessage, gapless bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.lastLocked(conv)
	for seq := int64(1); seq <= last; seq++ {
		e := f.byID[messageID(conv, seq)]
		if e == nil {
			return msgs, false
		}
		msgs = append(msgs, e.msg)
	}
	return msgs, true
}

// appenderOn returns an appender as a process of its own would have it, which knows that
// every conversation exists.
func appenderOn(f *fakeStore, convs ...string) *appender {
	c := newCache(1000)
	for _, conv := range convs {
		c.setKnown(conv)
	}
	return &appender{back: f, cache: c, flights: newFlights(), m: newMetrics(prometheus.NewRegistry()), noted: func(string, int64) {}}
}

func msg(conv, from, cid string) messaging.NewMessage {
	return messaging.NewMessage{Conv: conv, From: userid.MustParse(from), CID: cid, Type: 1001, Body: []byte(`"` + cid + `"`), TS: 7}
}
