package socket

import (
	"time"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/loop"
)

// A connection is arriving from accept to the end of its login. Nobody has vouched for
// it, so there may only be so many (Limits.Arriving), whatever they wait for: their own
// bytes, a verdict on the token, or the downlink. That bounds all that a storm of logins
// can make the edge and NATS hold.
//
// When the places are taken, one that has been silent or slow for longer than patience
// makes room for a new one, the oldest first: a client that means it is through in a few
// round trips, so those who only sit there cannot keep it out. If there is none like
// that, the new one is refused: what is under way is finished first.

// arrivals is the order in which connections came. Most entries are stale: they are
// skipped when they are met.
type arrivals struct {
	queue []arrival
	head  int
}

type arrival struct {
	key loop.Key
	at  stamp
}

// patience is how long a connection may be arriving before a new one may take its place.
const patience = time.Second

// waits reports whether c is arriving and the edge waits for its peer.
func (c *Conn) waits() bool { return c.state <= stLogin }

// oldest returns the connection that has been waited for the longest, nil if there is none.
func (k *keeper) oldest() (c *Conn, since stamp) {
	q := &k.arrivals
	for q.head < len(q.queue) {
		a := q.queue[q.head]
		if c := k.at(a.key); c != nil && c.key == a.key && c.waits() {
			return c, a.at
		}
		q.head++
	}
	q.head = 0
	if q.queue = q.queue[:0]; cap(q.queue) > 2*keepIdle {
		q.queue = nil // a storm is over: give its memory back
	}
	return nil, 0
}

// arrives notes a new connection.
func (k *keeper) arrives(c *Conn) {
	k.oldest() // skips what is stale, so that the queue holds no more than some seconds
	q := &k.arrivals
	if q.head > len(q.queue)/2 && len(q.queue) == cap(q.queue) {
		q.queue = q.queue[:copy(q.queue, q.queue[q.head:])]
		q.head = 0
	}
	q.queue = append(q.queue, arrival{c.key, c.seen})
	c.set(fArriving)
	k.arriving++
}

// arrived takes c out of those that arrive: it is in, or it is over.
func (c *Conn) arrived() {
	if c.has(fArriving) {
		c.drop(fArriving)
		c.k.arriving--
	}
}

// makeRoom ends the connection that has been waited for too long, and reports whether
// there was one.
func (k *keeper) makeRoom() bool {
	c, since := k.oldest()
	if c == nil || !since.after(patience).reached(k.now()) {
		return false
	}
	if c.state == stHandshake {
		c.refuse(handshake.RefuseArriving)
	} else {
		c.close(EndGaveWay, "too many logins at once, reconnect")
	}
	c.settle()
	return true
}
