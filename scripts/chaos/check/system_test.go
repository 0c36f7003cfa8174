package check

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// system is a system that keeps its promises, as small as can be: a queue and a log for
// each user, and a list of messages for each conversation. It writes the history of a
// random run, with reconnects, lives that end and lives that are cut off.
type system struct {
	tape
	rnd     *rand.Rand
	users   []*person
	devs    []*gadget
	convs   map[string][]*parcel
	stored  map[string]*parcel // sender and cid
	cids    int
	poisons int
}

// parcel is a stored message.
type parcel struct {
	cid, from, to, body, conv string
	seq                       int64
}

type person struct {
	name string
	lane []frame   // what its devices sent, to be stored
	log  []*parcel // what goes to its devices
}

// frame is a send on its way. conn is where a refusal goes.
type frame struct {
	dev           *gadget
	conn          string
	cid, to, body string
}

// unsent is a send in an outbox.
type unsent struct{ cid, to, body string }

// gadget is a device. saved is what it would begin with after a crash.
type gadget struct {
	owner  *person
	name   string
	life   int
	conn   string // empty: not connected
	conns  int
	pos    int // in owner.log
	shown  map[string]int64
	outbox []unsent
	saved  struct {
		shown  map[string]int64
		outbox []unsent
	}
	known  []unsent // acknowledged, for repetitions
	steady bool     // stays connected and alive
	rest   int      // steps until it connects again
}

func newSystem(seed uint64, users int) *system {
	s := &system{rnd: rand.New(rand.NewPCG(seed, 1)), convs: map[string][]*parcel{}, stored: map[string]*parcel{}}
	s.put(history.Record{Kind: history.Run, Note: fmt.Sprintf("seed %d", seed)})
	for i := range users {
		s.users = append(s.users, &person{name: fmt.Sprintf("u%d", i)})
		s.join(s.users[i], "phone", i == 0)
	}
	return s
}

// put writes a record, at most 4 ms after the last one.
func (s *system) put(r history.Record) {
	s.now += time.Duration(s.rnd.IntN(int(4 * time.Millisecond)))
	r.T = int64(s.now)
	s.recs = append(s.recs, r)
}

func (s *system) join(u *person, name string, steady bool) {
	d := &gadget{owner: u, name: u.name + "|" + name, life: 1, shown: map[string]int64{}, steady: steady, pos: len(u.log)}
	for conv, all := range s.convs {
		if all[0].from == u.name || all[0].to == u.name {
			d.shown[conv] = int64(len(all))
		}
	}
	d.save()
	s.devs = append(s.devs, d)
	s.put(history.Record{Kind: history.Begin, User: u.name, Dev: d.name, Life: 1, Fresh: true})
	s.open(d, false)
}

func (d *gadget) save() {
	d.saved.shown, d.saved.outbox = maps.Clone(d.shown), slices.Clone(d.outbox)
}

func (s *system) of(d *gadget, k history.Kind) history.Record {
	return history.Record{Kind: k, Dev: d.name, Life: d.life, Conn: d.conn}
}

// open connects a device. What it missed follows when it resumes, else it is read.
func (s *system) open(d *gadget, resumed bool) {
	d.conns++
	d.conn = fmt.Sprintf("%s#%d", d.name, d.conns)
	r := s.of(d, history.Open)
	r.Resumed = resumed
	s.put(r)
	if !resumed {
		for _, l := range d.owner.log {
			s.show(d, l)
		}
		d.pos = len(d.owner.log)
		r := s.of(d, history.Synced)
		r.Conn = ""
		s.put(r)
	}
	for _, u := range d.outbox {
		s.transmit(d, u)
	}
}

func (s *system) transmit(d *gadget, u unsent) {
	r := s.of(d, history.Put)
	r.CID, r.To = u.cid, u.to
	s.put(r)
	d.owner.lane = append(d.owner.lane, frame{d, d.conn, u.cid, u.to, u.body})
}

func (s *system) close(d *gadget) {
	if d.conn != "" {
		s.put(s.of(d, history.Close))
		d.conn = ""
	}
}

// show hands a message to the event channel, if it is the next one, and settles the send
// that it is the echo of.
func (s *system) show(d *gadget, l *parcel) {
	if l.from == d.owner.name {
		s.settle(d, l)
	}
	if l.seq != d.shown[l.conv]+1 {
		return
	}
	d.shown[l.conv] = l.seq
	s.put(l.record(history.Event, d, ""))
	if s.rnd.IntN(8) == 0 {
		d.save()
	}
}

func (l *parcel) record(k history.Kind, d *gadget, conn string) history.Record {
	return history.Record{Kind: k, Dev: d.name, Life: d.life, Conn: conn, Conv: l.conv, Seq: l.seq, CID: l.cid, From: l.from, To: l.to, Body: l.body}
}

func (s *system) settle(d *gadget, l *parcel) {
	i := slices.IndexFunc(d.outbox, func(u unsent) bool { return u.cid == l.cid && u.body == l.body })
	if i < 0 {
		return
	}
	d.known = append(d.known, d.outbox[i])
	d.outbox = slices.Delete(d.outbox, i, i+1)
	s.put(history.Record{Kind: history.Ack, Dev: d.name, Life: d.life, CID: l.cid, Conv: l.conv, Seq: l.seq})
}

// send is a device that says something: mostly new, sometimes again, sometimes to nobody.
func (s *system) send(d *gadget) {
	u := unsent{to: s.users[s.rnd.IntN(len(s.users))].name}
	r := history.Record{Kind: history.Send, User: d.owner.name, Dev: d.name, Life: d.life}
	if u.to == d.owner.name {
		u.to = "nobody"
	}
	s.cids++
	u.cid = fmt.Sprintf("c%d", s.cids)
	u.body = "body of " + u.cid
	if roll := s.rnd.IntN(100); len(d.known) > 0 && roll < 4 {
		u = d.known[s.rnd.IntN(len(d.known))]
		if slices.ContainsFunc(d.outbox, func(o unsent) bool { return o.cid == u.cid }) {
			return
		}
		r.Again = roll < 3
		if r.Reuse = roll == 3; r.Reuse {
			u.body += "!"
		}
	}
	r.CID, r.To, r.Body = u.cid, u.to, u.body
	s.put(r)
	d.outbox = append(d.outbox, u)
	if d.conn != "" {
		s.transmit(d, u)
	}
}

// work stores some of the frames of a user, in order.
func (s *system) work(u *person) {
	n := len(u.lane) - s.rnd.IntN(len(u.lane)+1)/4
	for _, f := range u.lane[:n] {
		s.store(u, f)
	}
	u.lane = u.lane[n:]
}

func (s *system) store(u *person, f frame) {
	key := u.name + " " + f.cid
	l := s.stored[key]
	if l != nil && l.body != f.body || f.to == "nobody" {
		s.refuse(f)
		return
	}
	conv := "d:" + min(u.name, f.to) + ":" + max(u.name, f.to)
	if l == nil {
		l = &parcel{f.cid, u.name, f.to, f.body, conv, int64(len(s.convs[conv]) + 1)}
		s.stored[key] = l
		s.convs[conv] = append(s.convs[conv], l)
	}
	u.log = append(u.log, l)
	for _, o := range s.users {
		if o.name == f.to {
			o.log = append(o.log, l)
		}
	}
}

func (s *system) refuse(f frame) {
	d := f.dev
	if d.conn != f.conn || d.conn == "" {
		return
	}
	r := s.of(d, history.Never)
	r.CID, r.Code = f.cid, 1001
	s.put(r)
	if i := slices.IndexFunc(d.outbox, func(u unsent) bool { return u.cid == f.cid }); i >= 0 {
		d.outbox = slices.Delete(d.outbox, i, i+1)
		r.Kind, r.Conn = history.Refusal, ""
		s.put(r)
	}
}

// deliver hands a device what its user's log has for it.
func (s *system) deliver(d *gadget) {
	for d.conn != "" && d.pos < len(d.owner.log) {
		l := d.owner.log[d.pos]
		d.pos++
		s.put(l.record(history.Wire, d, d.conn))
		s.show(d, l)
	}
}

// stumble does to a device what happens to devices.
func (s *system) stumble(d *gadget) {
	if d.steady || d.conn == "" {
		return
	}
	s.close(d)
	d.rest = s.rnd.IntN(50)
	switch s.rnd.IntN(4) {
	case 0: // ends well
		s.put(history.Record{Kind: history.End, Dev: d.name, Life: d.life})
		s.begin(d)
	case 1: // is cut off: goes back to what it has saved
		s.put(history.Record{Kind: history.End, Dev: d.name, Life: d.life, Code: 1})
		d.shown, d.outbox = maps.Clone(d.saved.shown), slices.Clone(d.saved.outbox)
		s.begin(d)
		d.pos = -1
	}
}

func (s *system) begin(d *gadget) {
	d.life++
	d.save()
	s.put(history.Record{Kind: history.Begin, User: d.owner.name, Dev: d.name, Life: d.life, Cursors: maps.Clone(d.shown)})
}

// again connects a device that has rested.
func (s *system) again(d *gadget) {
	if d.conn != "" {
		return
	}
	if d.rest--; d.rest < 0 {
		s.open(d, d.pos >= 0 && s.rnd.IntN(3) > 0)
	}
}

// run makes a whole history with some number of sends.
func (s *system) run(sends int) []history.Record {
	for i := 0; s.cids < sends; i++ {
		for range 2 {
			s.send(s.devs[s.rnd.IntN(len(s.devs))])
		}
		for k := range 4 { // in turn, so that nobody waits for seconds
			s.work(s.users[(4*i+k)%len(s.users)])
		}
		for _, d := range s.devs {
			s.again(d)
		}
		for k := range 4 {
			s.deliver(s.devs[(4*i+k)%len(s.devs)])
		}
		if s.rnd.IntN(20) == 0 {
			s.stumble(s.devs[s.rnd.IntN(len(s.devs))])
		}
		if i%500 == 250 {
			s.trouble(i)
		}
		if i%200 == 100 && len(s.devs) < 2*len(s.users) {
			s.join(s.users[s.rnd.IntN(len(s.users))], fmt.Sprintf("pad%d", i), false)
		}
	}
	s.settleAll()
	return s.recs
}

func (s *system) trouble(i int) {
	names := []string{"kill edge", "kill worker", "partition"}
	f := history.Record{Kind: history.Fault, Fault: i, Name: names[s.rnd.IntN(len(names))]}
	f.Kill = f.Name != "partition"
	s.put(f)
	s.poisons++
	p := history.Record{Kind: history.Poison, CID: fmt.Sprintf("p%d", s.poisons)}
	s.put(p)
	p.Kind = history.Dead
	s.put(p)
	f.Kind = history.Heal
	s.put(f)
}

// settleAll lets everything come to its end, and reads history.
func (s *system) settleAll() {
	for _, d := range s.devs {
		if d.rest = 0; d.conn == "" {
			s.open(d, false)
		}
	}
	s.put(history.Record{Kind: history.Quiet})
	for _, u := range s.users {
		for len(u.lane) > 0 {
			s.work(u)
		}
	}
	for _, d := range s.devs {
		s.deliver(d)
	}
	s.put(history.Record{Kind: history.Lag})
	s.now += time.Second
	for _, d := range s.devs {
		s.put(history.Record{Kind: history.Outbox, Dev: d.name, Life: d.life, Seq: int64(len(d.outbox))})
	}
	for _, conv := range slices.Sorted(maps.Keys(s.convs)) {
		all := s.convs[conv]
		for _, user := range []string{all[0].from, all[0].to} {
			for _, l := range all {
				s.put(history.Record{Kind: history.Row, User: user, Conv: conv, Seq: l.seq, CID: l.cid, From: l.from, To: l.to, Body: l.body})
			}
			s.put(history.Record{Kind: history.Read, User: user, Conv: conv, Seq: int64(len(all))})
		}
	}
	s.put(history.Record{Kind: history.Done})
}
