package socket

import (
	"slices"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/loop"
)

// keeper owns the connections of one loop: everything here belongs to that loop's
// goroutine, but for counts, which others read.
type keeper struct {
	srv   *Server
	loop  *loop.Loop[message]
	layer layer
	conns []*Conn // by slot of the loop

	scratch []byte // what the last read brought; nothing keeps a part of it
	tmp     []byte // a payload that is being built
	parser  parser // of the connection that is being fed; at rest between
	pool    buffers
	idle    []*work // not lent
	dirty   []*Conn // have something to write at the end of the turn

	late []*Conn // whose Disconnected is tried again, lateStep of them each tick

	paid   []*Conn // whose pause for their rates is over; see goOn
	paidAt int     // of paid, up to here done

	arriving  int // connections on their way in
	arrivals  arrivals
	drainNext int // slot at which the drain goes on; see drain.go
	drained   int // connections that have their turn

	logs logs
	counts
}

const (
	scratchSize = 16 << 10
	keepIdle    = 1024 // work structs
	lateStep    = 1024 // so that an uplink that is full is not kept busy with refusing
	maxRefusing = 128  // connections over the limit that may stay until they have read the answer
)

func newKeeper(s *Server, l layer) (*keeper, error) {
	k := &keeper{srv: s, layer: l, scratch: make([]byte, scratchSize)}
	k.pool.budget = s.cfg.Limits.Buffered / int64(s.cfg.Loops)
	lp, err := loop.New(loop.Handler[message](k), loop.Config{Tick: s.cfg.Times.Tick})
	k.loop = lp
	return k, err
}

func (k *keeper) now() stamp { return stampOf(k.loop.Now()) }

func (k *keeper) takeWork() *work {
	if n := len(k.idle); n > 0 {
		w := k.idle[n-1]
		k.idle = k.idle[:n-1]
		return w
	}
	return &work{}
}

func (k *keeper) giveWork(w *work) {
	if len(k.idle) < keepIdle {
		*w = work{}
		k.idle = append(k.idle, w)
	}
}

// Accept is loop.Handler.
func (k *keeper) Accept(key loop.Key, from int) {
	for key.Slot() >= len(k.conns) {
		k.conns = append(k.conns, nil)
	}
	c := &Conn{k: k, key: key, num: k.srv.nextNum(), seen: k.now()}
	c.deadline = c.seen.after(k.srv.cfg.Times.Handshake)
	k.conns[key.Slot()] = c
	k.add(nAccepted, 1)
	k.srv.live.Add(1)
	open := k.srv.sockets.Add(1)
	k.arrives(c)
	r := k.admit(int(open))
	if r == nil && k.srv.listeners[from].Proxied {
		r = c.expectHeader()
	}
	if r == nil {
		c.rearm()
	} else if int(open) > k.srv.cfg.Limits.Connections+maxRefusing {
		c.turnAway(r)
	} else {
		c.refuse(r)
	}
}

// admit says why a new connection may not stay; open are all descriptors with its own.
func (k *keeper) admit(open int) *handshake.Refusal {
	lim := &k.srv.cfg.Limits
	switch {
	case k.srv.draining.Load():
		return handshake.RefuseDraining
	case open > lim.Connections:
		return handshake.RefuseConnections
	case k.srv.cfg.ShortOfMemory():
		return handshake.RefuseMemory
	case k.srv.cfg.LoginsLate():
		return handshake.RefuseLogins
	case k.arriving > max(lim.Arriving/k.srv.cfg.Loops, 1) && !k.makeRoom():
		return handshake.RefuseArriving
	}
	return nil
}

// forget takes c off the loop.
func (k *keeper) forget(c *Conn) {
	if c.arrived(); c.has(fCounted) {
		k.open.Add(-1)
	}
	k.loop.Close(c.key)
	k.srv.sockets.Add(-1)
	k.conns[c.key.Slot()] = nil
}

// gone is called once for each connection, when nothing of it is left.
func (k *keeper) gone() { k.srv.oneGone() }

func (k *keeper) at(key loop.Key) *Conn { return k.conns[key.Slot()] }

// Readable is loop.Handler.
func (k *keeper) Readable(key loop.Key) {
	c := k.at(key)
	c.readable()
	c.settle()
}

// Writable is loop.Handler.
func (k *keeper) Writable(key loop.Key) {
	c := k.at(key)
	c.writable()
	c.settle()
}

// Hangup is loop.Handler.
func (k *keeper) Hangup(key loop.Key) {
	c := k.at(key)
	c.lost()
	c.settle()
}

// Timeout is loop.Handler.
func (k *keeper) Timeout(key loop.Key) {
	c := k.at(key)
	c.timeout()
	c.settle()
}

// Message is loop.Handler.
func (k *keeper) Message(m message) {
	switch m.kind {
	case mDrain:
		k.drain()
	case mCut:
		k.cut()
	case mPaid:
		k.goOn()
	default:
		k.layer.posted(m.c, &m)
		m.c.settle()
	}
}

// Tick is loop.Handler.
func (k *keeper) Tick() {
	k.buffered.Store(k.pool.lent)
	k.arrivingNow.Store(int64(k.arriving))
	n := min(len(k.late), lateStep)
	for _, c := range k.late[:n] {
		k.loop.Post(message{c: c, kind: mRetry})
	}
	if k.late = slices.Delete(k.late, 0, n); len(k.late) == 0 {
		k.late = nil
	}
}

// TurnEnd is loop.Handler: one write for each connection that has something to say.
func (k *keeper) TurnEnd() {
	for i := 0; i < len(k.dirty); i++ { // flush may add to it
		c := k.dirty[i]
		c.drop(fDirty)
		c.flush()
		c.settle()
	}
	clear(k.dirty)
	k.dirty = k.dirty[:0]
}

// AcceptFailed is loop.Handler.
func (k *keeper) AcceptFailed(err error) {
	k.add(nAcceptFailures, 1)
	k.srv.log.Warn("accepting pauses: out of descriptors or memory", "error", err, "open", k.srv.sockets.Load())
}
