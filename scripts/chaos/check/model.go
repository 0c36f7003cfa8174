package check

import (
	"hash/maphash"
	"io"
	"math"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// none is an index that points nowhere.
const none = -1

// never is later than everything.
const never = math.MaxInt64

// kind is a history.Kind as a small number; 0 is one that the checker does not know.
type kind uint8

const (
	kUnknown kind = iota
	kRun
	kBegin
	kEnd
	kOpen
	kPut
	kWire
	kLater
	kNever
	kResync
	kClose
	kSend
	kAck
	kRefusal
	kEvent
	kSkipped
	kSynced
	kOutbox
	kFault
	kHeal
	kWiped
	kPoison
	kDead
	kQuiet
	kLag
	kRow
	kRead
	kDone
)

var kinds = map[history.Kind]kind{
	history.Run: kRun, history.Begin: kBegin, history.End: kEnd, history.Open: kOpen, history.Put: kPut,
	history.Wire: kWire, history.Later: kLater, history.Never: kNever, history.Resync: kResync, history.Close: kClose,
	history.Send: kSend, history.Ack: kAck, history.Refusal: kRefusal, history.Event: kEvent, history.Skipped: kSkipped,
	history.Synced: kSynced, history.Outbox: kOutbox, history.Fault: kFault, history.Heal: kHeal, history.Wiped: kWiped,
	history.Poison: kPoison, history.Dead: kDead, history.Quiet: kQuiet, history.Lag: kLag, history.Row: kRow,
	history.Read: kRead, history.Done: kDone,
}

const (
	fAgain uint8 = 1 << iota
	fReuse
	fResumed
	fKill
)

// entry is a record without its strings: a history has millions. Entry n of a model is
// record n of the history. Fields that a kind does not have are none or 0.
type entry struct {
	t, seq int64
	body   uint64 // hash of the body; of Skipped: upto
	msg    int32  // index of messages
	life   int32  // index of lives
	conn   int32  // index of conns
	conv   int32  // index of convs
	user   int32  // of the record itself: who sends, who reads
	to     int32
	code   int32
	kind   kind
	flags  uint8
}

func (e *entry) is(flag uint8) bool { return e.flags&flag != 0 }

// sameAs reports whether two entries carry the same message with the same content.
func (e *entry) sameAs(o *entry) bool { return e.msg == o.msg && e.to == o.to && e.body == o.body }

// message is one (sender, clientMsgId), whoever spoke of it first.
type message struct {
	sender, cid int32
	send        int32 // entry of the first Send that is no reuse; none: it was never sent
	reuse       int32 // entry of the first Send with another body; none: there is none
	conv        int32 // place in final history; none: it is not there
	seq         int64

	stored    int64 // the earliest time at which somebody knew that it is stored
	acked     int64 // the earliest time at which its sender did
	resolved  int64 // the same, or a refusal
	delivered int64 // when it first came to a device of its receiver
}

// life is one process of a device. Times are never when it did not happen.
type life struct {
	dev        int32
	number     int
	begin, end int32           // entries; none: it is not on record
	cursors    map[int32]int64 // by conversation
	synced     int64
	outbox     int32 // entry
	fresh      bool
	slow       bool
	crashed    bool // cut off, or followed by another life without a word
}

// device has its lives in the order of their beginnings.
type device struct {
	user  int32
	lives []int32
}

// conn is a connection.
type conn struct {
	life        int32
	open, close int32 // entries
}

// fault is something that was broken.
type fault struct {
	entry  int32
	name   string
	number int
	kill   bool
	from   int64
	heal   int64 // never: no record says so
}

// letter is a message that is known by its cid alone: a poison, or what was found dead.
type letter struct{ entry, cid int32 }

// named are the strings of one kind, by index.
type named struct {
	index map[string]int32
	names []string
}

// id returns the index of a name; an empty one has none.
func (n *named) id(name string) int32 {
	if name == "" {
		return none
	}
	i, ok := n.index[name]
	if !ok {
		if n.index == nil {
			n.index = map[string]int32{}
		}
		i = int32(len(n.names))
		n.names, n.index[name] = append(n.names, name), i
	}
	return i
}

func (n *named) name(i int32) string {
	if i < 0 || int(i) >= len(n.names) {
		return "?"
	}
	return n.names[i]
}

// names are the strings of a history.
type names struct{ users, devNames, connNames, convs, cids named }

// actors are who did something.
type actors struct {
	lives   []life
	byLife  map[uint64]int32 // device and number → lives
	devices []device         // by index of devNames
	conns   []conn           // by index of connNames
}

// trouble is what was done to the system.
type trouble struct {
	faults         []fault // in order of their beginnings
	poisons, deads []letter
	wiped          []int32 // entries
}

// model is a whole history, made in one pass. Rules only read it.
type model struct {
	limits  Limits
	report  *reporter
	run     history.Record
	entries []entry
	seed    maphash.Seed

	names
	actors
	trouble

	messages []message
	byKey    map[uint64]int32 // sender and cid → messages

	rows  table
	quiet int64 // never: it is not on record
	last  int64 // time of the last record
	done  bool
}

func newModel(l Limits) *model {
	return &model{limits: l, report: newReporter(l.Shown), byKey: map[uint64]int32{}, seed: maphash.MakeSeed(),
		actors: actors{byLife: map[uint64]int32{}}, quiet: never}
}

// read makes the model of a history.
func (m *model) read(r io.Reader) error {
	if err := history.Scan(r, func(rec history.Record) error { m.add(&rec); return nil }); err != nil {
		return err
	}
	m.finish()
	return nil
}

// add takes the next record.
func (m *model) add(r *history.Record) {
	at := int32(len(m.entries))
	e := entry{t: r.T, seq: r.Seq, msg: none, life: none, kind: kinds[r.Kind], code: int32(r.Code),
		conn: m.connNames.id(r.Conn), conv: m.convs.id(r.Conv), user: m.users.id(r.User), to: m.users.id(r.To)}
	switch {
	case r.Body != "":
		e.body = maphash.String(m.seed, r.Body)
	case e.kind == kSkipped:
		e.body = uint64(max(r.Seq, r.Upto))
	}
	e.flags = bit(r.Again, fAgain) | bit(r.Reuse, fReuse) | bit(r.Resumed, fResumed) | bit(r.Kill, fKill)
	if r.Dev != "" {
		e.life = m.lifeOf(r, at)
	}
	m.last = max(m.last, e.t)
	e.msg = m.messageOf(r, &e)
	m.entries = append(m.entries, e)
	m.note(r, at)
}

func bit(on bool, flag uint8) uint8 {
	if on {
		return flag
	}
	return 0
}

// lifeOf returns the life that a record names. One that never began is malformed.
func (m *model) lifeOf(r *history.Record, at int32) int32 {
	dev := m.devNames.id(r.Dev)
	if int(dev) == len(m.devices) {
		m.devices = append(m.devices, device{user: m.users.id(r.User)})
	}
	key := uint64(uint32(dev))<<32 | uint64(uint32(r.Life))
	i, ok := m.byLife[key]
	if !ok {
		i = int32(len(m.lives))
		m.byLife[key] = i
		m.lives = append(m.lives, life{dev: dev, number: r.Life, begin: none, end: none, outbox: none, synced: never})
		m.devices[dev].lives = append(m.devices[dev].lives, i)
		if r.Kind != history.Begin {
			m.report.add(Malformed, r.T, subject{keys: []int32{at}}, "life %d of %s never began", r.Life, r.Dev)
		}
	}
	return i
}

// messageOf returns the message that a record is about.
func (m *model) messageOf(r *history.Record, e *entry) int32 {
	var sender int32
	switch e.kind {
	case kWire, kEvent, kRow:
		sender = m.users.id(r.From)
	case kSend, kPut, kLater, kNever, kAck, kRefusal:
		if e.life == none {
			return none
		}
		sender = m.userOf(e.life)
	default:
		return none
	}
	if r.CID == "" {
		return none
	}
	cid := m.cids.id(r.CID)
	key := uint64(uint32(sender))<<32 | uint64(uint32(cid))
	i, ok := m.byKey[key]
	if !ok {
		i = int32(len(m.messages))
		m.byKey[key] = i
		m.messages = append(m.messages, message{sender: sender, cid: cid, send: none, reuse: none, conv: none,
			stored: never, acked: never, resolved: never, delivered: never})
	}
	return i
}

// userOf returns whose device a life is of.
func (m *model) userOf(life int32) int32 {
	if life == none {
		return none
	}
	return m.devices[m.lives[life].dev].user
}

func (m *model) devName(life int32) string {
	if life == none {
		return "?"
	}
	return m.devNames.name(m.lives[life].dev)
}
