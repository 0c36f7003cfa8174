package downlink

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

// Headers that nats-server adds to a republished message (ADR-28) and to the answer of a
// direct get (ADR-31).
const (
	hStream   = "Nats-Stream"
	hSubject  = "Nats-Subject"
	hSequence = "Nats-Sequence"
	hLast     = "Nats-Last-Sequence"
	hPending  = "Nats-Num-Pending"
	hTime     = "Nats-Time-Stamp"
	hUpTo     = "Nats-UpTo-Sequence" // of the end of an answer to multi_last
)

// Bounds of what waits for a position: per user, and per hub. What does not fit is read
// from the stream later. A hold may follow a replay in the same burst, see MaxReplayBytes.
const (
	holdFrames   = 256
	holdBytes    = 256 << 10
	hubHoldBytes = 64 << 20
)

// foreignProbe is the least age of the last marker at which a frame of an unknown
// incarnation makes another one.
const foreignProbe = 100 * time.Millisecond

// entry is a frame on its way to receivers.
type entry struct {
	raw     []byte // as published; see own
	data    []byte // with the resume member; made when it is needed first
	at      Token
	prev    uint64 // the user's frame before it, 0: none is in the stream
	target  uint64 // users.ConnHash of the only connection that it is for, 0: all
	echoes  int64  // see Frame
	unsent  bool   // it is no JSON object: it moves positions and nothing else
	checked bool   // prev == 0 is known to mean that there was none
	lent    bool   // raw is the feed's and is used again after this frame
}

// own makes raw one that may be kept.
func (e *entry) own() []byte {
	if e.lent {
		e.raw, e.lent = bytes.Clone(e.raw), false
	}
	return e.raw
}

// busy is the state of a user with whom something is under way.
type busy struct {
	joiners int
	waiting waiting
	asked   uint64 // the id of the job that ends waiting
	lost    bool   // the hold overflowed, or something may have been missed meanwhile
	hold    []entry
	bytes   int
}

type waiting uint8

const (
	forNothing waiting = iota
	forCheck           // of the first frame of the hold: nobody gets live frames
	forRepair          // of what lies behind the position: nobody gets live frames
)

func (x *perUser) wait() *busy {
	if x.busy == nil {
		x.busy = &busy{}
	}
	return x.busy
}

// frame takes one live message. Nothing of it is kept.
func (h *hub) frame(f *feed.Frame) {
	n, token, ok := subject.CutLive(f.Subject)
	if !ok || n >= len(h.shards) || h.shards[n] == nil {
		h.d.m.frames[frameStray].Inc()
		return
	}
	sh := h.shards[n]
	u := sh.users.Find(token)
	if u == nil { // its last receiver left
		h.d.m.frames[frameStray].Inc()
		return
	}
	h.touch(sh, u)
	e, stored := h.entryOf(sh, f)
	if !stored {
		h.d.m.frames[frameCore].Inc()
		h.pass(u, &e)
		return
	}
	h.accept(sh, u, &e)
}

// entryOf reads a live message; stored is false for one that did not go through the stream
// and may be lost. Of a header that is there twice the last one counts: the server's own
// lines are behind those of who published.
func (h *hub) entryOf(sh *shard, f *feed.Frame) (e entry, stored bool) {
	e = entry{raw: f.Data, lent: true, unsent: !sendable(f.Data)}
	if e.unsent {
		h.d.m.events[evBad].Inc()
	}
	var name []byte
	var seq uint64
	for key, value := range f.Fields() {
		switch string(key) {
		case hStream:
			name = value
		case hSequence:
			seq = decimal(value)
		case hLast:
			e.prev = decimal(value)
		case envelope.Target:
			e.target = targetOf(string(value))
		case envelope.Echo:
			e.echoes = envelope.ParseEcho(value, h.d.cfg.Edge)
		}
	}
	if len(name) == 0 || seq == 0 {
		e.prev = 0
		return e, false
	}
	if string(name) == sh.life.name {
		e.at = sh.token(seq)
		return e, true
	}
	d, err := stream.ParseDown(string(name))
	if err != nil {
		return e, false
	}
	e.at = NewToken(d.Epoch, d.Shard, seq)
	return e, true
}

// sendable: the resume member is put in as the first one, so there must be another.
func sendable(data []byte) bool { return len(data) > 2 && data[0] == '{' && data[1] == '"' }

func targetOf(conn string) uint64 {
	if conn == "" {
		return 0
	}
	return users.ConnHash(conn)
}

// decimal reads a sequence; 0 is none.
func decimal(s []byte) (n uint64) {
	for _, c := range s {
		if c < '0' || '9' < c || n > (math.MaxUint64-9)/10 {
			return 0
		}
		n = 10*n + uint64(c-'0')
	}
	return n
}

func first(m *nats.Msg, key string) string {
	if v := m.Header[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func number(m *nats.Msg, key string) uint64 {
	n, _ := strconv.ParseUint(first(m, key), 10, 64)
	return n
}

// accept works a stored live frame in the order of arrival.
func (h *hub) accept(sh *shard, u *user, e *entry) {
	b := u.X.busy
	switch {
	case e.at.in != sh.life.in: // another incarnation: the next marker tells which one lives
		h.d.m.frames[frameForeign].Inc()
		sh.probe = sh.probe || time.Since(sh.marked) > foreignProbe
		if b != nil {
			h.keep(u, e)
		} else {
			h.pass(u, e)
		}
		return
	case e.at.seq <= u.X.pos:
		h.d.m.frames[frameLate].Inc()
		return
	}
	sh.life.high = max(sh.life.high, e.at.seq) // also of what is held: a marker below it tells that the stream went back
	if b != nil && b.waiting != forNothing || u.X.pos == 0 {
		h.keep(u, e)
		return
	}
	if !h.step(sh, u, e) {
		h.keep(u, e)
		return
	}
	h.deliver(u, e)
	if b != nil && b.joiners > 0 {
		h.keep(u, e)
	}
}

// step moves the user's position to e, which lies behind it, if it is the next frame.
// If not, what lies between is asked for, and the caller holds e until it is known.
func (h *hub) step(sh *shard, u *user, e *entry) bool {
	switch pos := u.X.pos; {
	case e.prev > pos:
		h.d.m.events[evGap].Inc()
		h.repair(sh, u)
		return false
	case e.prev == 0 && !e.checked: // its predecessor was evicted, or never was
		h.ask(sh, u, forCheck, job{kind: check, from: pos, upto: e.at.seq})
		return false
	}
	u.X.pos = e.at.seq
	return true
}

// repair asks for everything behind the lowest position of the user's receivers.
func (h *hub) repair(sh *shard, u *user) {
	h.ask(sh, u, forRepair, job{kind: repair, from: lowest(u)})
}

// ask lets a user wait for a job, and for no other: one that was asked for in an earlier
// life of the user, or of the stream, answers nothing.
func (h *hub) ask(sh *shard, u *user, w waiting, j job) {
	b := u.X.wait()
	h.asked++
	b.waiting, b.asked = w, h.asked
	j.user, j.id = u.ID, h.asked
	sh.pending = append(sh.pending, j)
}

// answered returns the user who waits for j, if he still does.
func (h *hub) answered(sh *shard, j *job) *user {
	u := sh.users.Get(j.user)
	if u == nil || u.X.gen != sh.life.gen {
		return nil
	}
	b := u.X.busy
	if b == nil || b.waiting == forNothing || b.asked != j.id {
		return nil
	}
	b.waiting = forNothing
	return u
}

// lowest is the position up to which every receiver that does not join has everything.
func lowest(u *user) uint64 {
	low := u.X.pos
	for i := range u.Len() {
		if s := u.At(i); !s.Joining {
			low = min(low, s.Last)
		}
	}
	return low
}

// deliver hands e to all receivers that are behind it and do not join.
func (h *hub) deliver(u *user, e *entry) {
	for i := range u.Len() {
		if s := u.At(i); !s.Joining {
			h.deliverTo(s, e)
		}
	}
}

func (h *hub) deliverTo(s *slot, e *entry) {
	if e.at.seq <= s.Last {
		return
	}
	s.Last = e.at.seq
	if e.unsent || e.target != 0 && e.target != s.Conn {
		return
	}
	h.d.m.frames[frameDelivered].Inc()
	if s.Owed { // it must not get a token before it was told of the loss
		s.Receiver.Deliver(Frame{Data: e.own(), Echoes: e.echoes})
		return
	}
	if e.data == nil {
		e.data = withResume(e.raw, e.at)
	}
	s.Receiver.Deliver(Frame{Data: e.data, At: e.at, Echoes: e.echoes})
}

// pass hands e over without a position.
func (h *hub) pass(u *user, e *entry) {
	if e.unsent {
		return
	}
	for i := range u.Len() {
		if s := u.At(i); !s.Joining && (e.target == 0 || e.target == s.Conn) {
			h.d.m.frames[frameDelivered].Inc()
			s.Receiver.Deliver(Frame{Data: e.own()})
		}
	}
}

const resumeMember = `{"resume":"`

// withResume inserts the resume token as the first member of a JSON object.
func withResume(raw []byte, at Token) []byte {
	var buf [maxToken]byte
	token := at.AppendTo(buf[:0])
	b := make([]byte, 0, len(resumeMember)+len(token)+len(`",`)+len(raw)-1)
	b = append(b, resumeMember...)
	b = append(b, token...)
	b = append(b, '"', ',')
	return append(b, raw[1:]...)
}

// keep holds e back. A hold that is full is emptied: everything behind the position is
// read from the stream then.
func (h *hub) keep(u *user, e *entry) {
	b := u.X.wait()
	if b.lost {
		return
	}
	if len(b.hold) >= h.holdMost || b.bytes+len(e.raw) > holdBytes || h.held+len(e.raw) > hubHoldBytes {
		h.d.m.events[evOverflow].Inc()
		h.spoil(b)
		return
	}
	e.own()
	b.hold = append(b.hold, *e)
	b.bytes += len(e.raw)
	h.held += len(e.raw)
}

// drop removes the first n entries of a hold.
func (h *hub) drop(b *busy, n int) {
	for i := range b.hold[:n] {
		b.bytes -= len(b.hold[i].raw)
		h.held -= len(b.hold[i].raw)
	}
	if n == len(b.hold) {
		b.hold = nil
		return
	}
	rest := copy(b.hold, b.hold[n:])
	clear(b.hold[rest:])
	b.hold = b.hold[:rest]
}

// spoil empties a hold for good: what lies behind the position will be read.
func (h *hub) spoil(b *busy) {
	h.drop(b, len(b.hold))
	b.lost = true
}

// flush works the hold after something changed: a receiver joined or left, a check or a
// repair is done.
func (h *hub) flush(sh *shard, u *user) {
	b := u.X.busy
	if b == nil || b.waiting != forNothing || u.X.pos == 0 {
		return
	}
	if b.lost && u.Len() > b.joiners {
		b.lost = false
		h.repair(sh, u)
		return
	}
	hold := b.hold
	for i := range hold {
		e := &hold[i]
		switch {
		case e.at.in != sh.life.in:
			continue // of an incarnation that is gone; see touch
		case e.at.seq > u.X.pos && !h.step(sh, u, e):
			h.worked(b, i)
			return
		}
		h.deliver(u, e)
	}
	h.worked(b, len(hold))
	if b.joiners == 0 && len(b.hold) == 0 {
		u.X.busy = nil
	}
}

// worked drops the first n entries of the hold, unless somebody joins who needs them.
func (h *hub) worked(b *busy, n int) {
	if b.joiners == 0 {
		h.drop(b, n)
	}
}
