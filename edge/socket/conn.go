package socket

import (
	"net/netip"
	"strconv"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/loop"
	"github.com/wirepost/wirepost/shared/userid"
)

// Conn is one connection. All of it is owned by its loop's goroutine, without a lock;
// other goroutines only call the methods in post.go, which send a message to the loop.
// At rest it is this struct and nothing else: what is needed while something is going on
// is in work, which is lent.
type Conn struct {
	k    *keeper
	w    *work // nil at rest
	key  loop.Key
	num  uint64 // of the connection on this edge; see connID
	user userid.ID
	sess session // of the layer above the WebSocket

	seen     stamp // when a byte was last heard; see hear
	spent    spent // of the rates
	deadline stamp // of the state: handshake, login, attach, close; see timeout
	flags    flags
	state    state
	pings    uint8 // sent since a byte was heard
	end      End
	ignored  uint32 // bytes; see ignore
}

// session is what the client protocol keeps for a connection at rest.
type session struct {
	at          downlink.Token // the newest position that was handed to this socket
	device      string         // as the client named it
	expires     stamp          // of the token
	drainAt     stamp          // when drain tells or closes it; see fDraining
	events      uint32         // published for this connection
	incarnation uint32         // of the lane in which its last frame was stored; 0 before
}

// work is what a connection holds only while something is going on.
type work struct {
	scan   handshake.Scan
	parser parser
	rest   []byte // bytes that were read and not looked at: of a request, or behind a frame in flight
	restAt int    // of rest, up to here done

	out    []byte          // bytes for the peer, from a frame's start
	outAt  int             // of out, up to here written
	moved  stamp           // when the peer last took a byte of out
	since  stamp           // when the first byte of the incomplete message arrived
	flight []byte          // payload that the uplink owns
	client *netip.AddrPort // that proxies told of; see client.go
}

// state is the station of a connection's life, in this order; none is entered twice.
type state uint8

const (
	stHandshake state = iota // the request is read
	stLogin                  // waits for the login frame
	stVerify                 // the token is being verified
	stAttach                 // the downlink is being set up
	stOpen
	stClosing // our close frame, or a refusal, was sent
	stClosed  // the descriptor is closed; the uplink may still hold a frame
)

type flags uint32

const (
	fInFlight   flags = 1 << iota // the uplink holds an event of this connection
	fFrame                        // that event is a frame
	fSent                         // a frame was stored; sess.incarnation holds
	fVerifying                    // the pool holds a token of it
	fAttached                     // Attach was called, Detach not yet
	fAnnounced                    // Connected was handed to the uplink
	fLeaving                      // Disconnected was, too
	fReannounce                   // Connected is to be published again
	fDirty                        // stands in keeper.dirty
	fBlocked                      // writing waits for the peer
	fMoved                        // the position moved and the client was not told
	fWarned                       // was told that its token expires
	fReadOff                      // reading is not wanted at the loop
	fDeaf                         // what comes is thrown away unread
	fShut                         // ends for writing once out is written
	fDraining                     // drainAt holds
	fTold                         // was told that the edge goes away
	fCounted                      // counts as open
	fArriving                     // counts as arriving; see arrivals.go
	fLimited                      // has sent too much: see rate.go
	fPaid                         // stands in keeper.paid
	fProxied                      // came to a listener of proxies
	fHeader                       // a PROXY header comes first
	fForwarded                    // the peer is a proxy, its client is another
)

func (c *Conn) has(f flags) bool { return c.flags&f != 0 }
func (c *Conn) set(f flags)      { c.flags |= f }
func (c *Conn) drop(f flags)     { c.flags &^= f }

// paused reports whether nothing may be taken from the peer now: a frame of this
// connection is at the uplink, its token is being looked at, or it has sent too much.
func (c *Conn) paused() bool {
	if c.state >= stClosing {
		return false
	}
	return c.flags&(fInFlight|fVerifying|fLimited) != 0 || c.state == stAttach
}

// connID returns the connection's id: a plain token, unique over restarts of the edge.
func (c *Conn) connID() string {
	b := make([]byte, 0, 64)
	b = append(append(b, c.k.srv.cfg.Edge...), '-')
	return string(strconv.AppendUint(b, c.num, 36))
}

// busy returns the connection's work, lent until settle finds nothing in it.
func (c *Conn) busy() *work {
	if c.w == nil {
		c.w = c.k.takeWork()
	}
	return c.w
}

// settle ends each entry from the loop: it gives work back when nothing is going on.
func (c *Conn) settle() {
	w := c.w
	if w == nil {
		return
	}
	if c.state == stClosing && !c.has(fDeaf) && (w.rest != nil || c.has(fReadOff)) {
		c.resume() // the peer's close frame may lie in what waited
	}
	w.parser.releaseDone(&c.k.pool)
	knows := w.client != nil && c.has(fArriving) // who it is, for Connected
	if w.rest == nil && w.out == nil && w.flight == nil && !knows && w.parser.resting() {
		c.w = nil
		c.k.giveWork(w)
	}
}

// readable reads once and feeds what came.
func (c *Conn) readable() {
	if c.paused() {
		c.set(fReadOff)
		c.k.loop.Want(c.key, false, c.has(fBlocked))
		return
	}
	n, err := c.k.loop.Read(c.key, c.k.scratch)
	if wouldBlock(err) {
		return
	}
	if err != nil || n == 0 {
		c.lost()
		return
	}
	c.k.add(nBytesIn, n)
	if c.state == stClosing {
		c.ignore(n)
	}
	if c.has(fDeaf) {
		return
	}
	c.hear(c.k.now())
	if c.state == stHandshake {
		c.readRequest(c.k.scratch[:n])
		return
	}
	c.feed(c.k.scratch[:n])
	c.spendBytes(n)
}

// ignore counts n bytes of a connection that closes, of which only a close frame counts,
// and reads no more after maxIgnored: the peer's writes then wait for its deadline.
func (c *Conn) ignore(n int) {
	if c.ignored += uint32(n); c.ignored < maxIgnored {
		return
	}
	c.set(fDeaf | fReadOff)
	c.dropRest()
	c.k.loop.Want(c.key, false, c.has(fBlocked))
}

const maxIgnored = 256 << 10

// feed parses what was read and keeps what cannot be looked at yet.
func (c *Conn) feed(b []byte) {
	if used := c.parse(b); used < len(b) {
		c.keepRest(b[used:])
	}
}

// keepRest copies bytes that wait until the connection is not paused any more.
func (c *Conn) keepRest(b []byte) {
	if c.has(fDeaf) {
		return
	}
	w := c.busy()
	grown := c.k.pool.grow(w.rest, len(b))
	if grown == nil && c.state == stHandshake {
		c.refuse(handshake.RefuseMemory)
		return
	}
	if grown == nil {
		c.fail(faultMemory)
		return
	}
	w.rest = append(grown, b...)
}

// resume goes on with the bytes that waited, and then with reading.
func (c *Conn) resume() {
	if c.state == stClosed || c.paused() {
		return
	}
	c.hear(c.k.now())
	if w := c.w; w != nil && w.rest != nil {
		w.restAt += c.parse(w.rest[w.restAt:])
		if w.restAt < len(w.rest) && !c.has(fDeaf) {
			return // paused again
		}
		c.dropRest()
	}
	if c.has(fReadOff) && c.state != stClosed && !c.paused() {
		c.drop(fReadOff)
		c.k.loop.Want(c.key, true, c.has(fBlocked))
	}
}

func (c *Conn) dropRest() {
	if w := c.w; w != nil {
		c.k.pool.give(w.rest)
		w.rest, w.restAt = nil, 0
	}
}

// parse hands whole messages and control frames on until b is used up or the connection
// is paused or over. It returns how much of b was taken.
//
// A connection whose last message is complete has no parser: the keeper's is used, and
// moves into the connection's work only if it ends inside a message.
func (c *Conn) parse(b []byte) (used int) {
	p, own := &c.k.parser, false
	if c.w != nil && !c.w.parser.resting() {
		p, own = &c.w.parser, true
	}
	fresh := !own // whether the message that is incomplete at the end began in b
	for used < len(b) && !c.paused() && !c.has(fDeaf) {
		n, ev, f := p.next(b[used:], c.k.layer.bounds(c), &c.k.pool)
		used += n
		if f != nil {
			c.fail(f)
			break
		}
		if ev.op != 0 {
			c.event(ev)
		}
		if p.between() {
			c.spendFrame()
		}
		fresh = fresh || p.resting()
	}
	p.releaseDone(&c.k.pool)
	switch {
	case c.has(fDeaf):
		p.release(&c.k.pool)
	case p.resting():
	default:
		if !own {
			c.busy().parser, *p = *p, parser{}
		}
		if fresh {
			c.w.since = c.k.now()
			c.rearm()
		}
	}
	return used
}

// event takes one whole message or control frame.
func (c *Conn) event(ev event) {
	switch ev.op {
	case ws.OpPing:
		c.k.add(nPings, 1)
		if c.state < stClosing {
			c.send(ws.OpPong, ev.data)
		}
	case ws.OpPong: // a byte was heard; that is all it is for
	case ws.OpClose:
		c.peerCloses(ev.data)
	default:
		c.k.add(nMessagesIn, 1)
		if c.state < stClosing {
			c.k.layer.message(c, ev.op, ev.data)
		}
	}
}
