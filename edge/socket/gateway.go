package socket

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

// gateway is the client protocol im.json.v1 on a connection. It answers logins and
// heartbeats, and relays everything else unread: one event of a connection is at the
// uplink at a time, and while it is nothing is taken from the peer.
type gateway struct {
	srv *Server
}

func (g *gateway) bounds(c *Conn) bounds {
	lim := &g.srv.cfg.Limits
	if c.state < stOpen {
		return bounds{maxMessage: min(lim.LoginFrame, lim.Frame), maxFragments: lim.Fragments}
	}
	return bounds{maxMessage: lim.Frame, maxFragments: lim.Fragments}
}

func (g *gateway) message(c *Conn, op ws.OpCode, data []byte) {
	if op != ws.OpText {
		c.fail(faultBinary)
		return
	}
	if c.state == stLogin {
		g.login(c, data)
		return
	}
	if string(data) == plainHeartbeat { // fast path
		g.heartbeat(c)
		return
	}
	switch msgType(data) {
	case protocol.Heartbeat:
		g.heartbeat(c)
	case protocol.Login:
		g.refresh(c, data)
	default:
		g.relay(c, data)
	}
}

// relay hands a frame to the uplink as it came.
func (g *gateway) relay(c *Conn, data []byte) {
	flight := c.k.pool.take(len(data))
	if flight == nil {
		c.fail(faultMemory)
		return
	}
	c.k.add(nRelayed, 1)
	w := c.busy()
	w.flight = append(flight, data...)
	g.publish(c, envelope.Frame, w.flight)
}

func (g *gateway) publish(c *Conn, t envelope.Type, data []byte) {
	c.set(fInFlight)
	trace := ""
	if t == envelope.Frame {
		c.set(fFrame)
		trace = traceParent(data)
	}
	c.sess.events++
	g.srv.deps.Uplink.Publish(c, envelope.Event{
		User: c.user, Type: t, Edge: g.srv.cfg.Edge, Conn: c.connID(), N: uint64(c.sess.events),
		Time: time.Now(), Reason: ends[c.end].reason, Data: data, After: c.sess.incarnation, Trace: trace,
	})
}

// announce publishes Connected.
func (g *gateway) announce(c *Conn) {
	c.set(fAnnounced)
	c.drop(fReannounce)
	data, err := json.Marshal(envelope.Hello{DeviceID: c.sess.device, Addr: c.clientAddr()})
	if err != nil { // two strings always marshal
		data = nil
	}
	g.publish(c, envelope.Connected, data)
}

// goodbye publishes Disconnected.
func (g *gateway) goodbye(c *Conn) {
	c.set(fLeaving)
	g.publish(c, envelope.Disconnected, nil)
}

func (g *gateway) ended(c *Conn) {
	if c.has(fAttached) {
		c.drop(fAttached)
		g.srv.deps.Downlink.Detach(c, c.user)
	}
	if c.has(fAnnounced) && !c.has(fInFlight) {
		g.goodbye(c)
	} // else it follows when the event in flight is done
}

// published takes the end of the event in flight.
//
// When an event is stored in another incarnation of the lane than the last frame, that
// frame and those before it may be lost with the old one. The client must send again what
// has no acknowledgement yet, in its order, which it does on a new connection [r]. The
// worker leaves a frame out that is ahead of them (envelope.Event.After): see early in
// worker/lane. A connection that has sent no frame has nothing to lose, and stays.
func (g *gateway) published(c *Conn, incarnation uint32, err error) {
	frame := c.has(fFrame)
	c.drop(fInFlight | fFrame)
	renewed := err == nil && c.has(fSent) && incarnation != c.sess.incarnation
	if err == nil && frame {
		c.sess.incarnation = incarnation
		c.set(fSent)
	}
	if w := c.w; w != nil {
		c.k.pool.give(w.flight)
		w.flight = nil
	}
	switch {
	case c.end != EndNone:
		g.publishedLate(c, err)
	case err != nil:
		c.close(EndStalled, "a frame was not stored in time, send it again")
	case renewed:
		c.close(EndRenewed, "the uplink was renewed, send again what was not acknowledged")
	case c.hadTurn(c.k.now()):
		c.close(EndDrain, "the edge goes away")
	case c.has(fReannounce):
		g.announce(c)
	default:
		c.resume()
	}
}

// publishedLate takes the end of the last events. Disconnected is tried until it is stored:
// nobody else ends the session in the store while this edge lives. Those of an edge that
// goes away end with it (worker/janitor).
func (g *gateway) publishedLate(c *Conn, err error) {
	switch {
	case !c.has(fLeaving):
		g.goodbye(c)
		return
	case err != nil && !g.srv.draining.Load():
		c.set(fInFlight) // until its turn comes, see keeper.late
		c.k.late = append(c.k.late, c)
		return
	case err != nil:
		c.k.add(nLostEvents, 1)
	}
	c.finish()
}

func (g *gateway) posted(c *Conn, m *message) {
	switch m.kind {
	case mPublished:
		g.published(c, m.incarnation, m.err)
	case mRetry:
		g.goodbye(c)
	case mVerified:
		g.verified(c, m.verdict)
	case mAttached:
		g.attached(c, m.resumed, m.at)
	case mAttachFailed:
		g.attachFailed(c, m.err)
	}
	if c.state != stOpen {
		return
	}
	switch m.kind {
	case mDeliver:
		if !m.at.IsZero() { // the frame itself tells the position
			c.sess.at = m.at
			c.drop(fMoved)
		}
		c.k.add(nDelivered, 1)
		c.send(ws.OpText, m.data)
		if m.echoes != 0 {
			g.srv.metrics.echoed(m.echoes, time.Now())
		}
	case mMoved:
		if m.at != c.sess.at {
			c.sess.at = m.at
			c.set(fMoved)
		}
	case mResync:
		g.resync(c, m.at)
	}
}

func (g *gateway) attachFailed(c *Conn, err error) {
	c.drop(fAttached)
	if errors.Is(err, downlink.ErrTooManyConnections) {
		c.close(EndTooMany, "too many connections of this user")
		return
	}
	c.close(EndNotAttached, "the downlink is not ready, reconnect")
}

// resync tells the client that what it missed is not known, and the workers that this
// connection is here: all that NATS knew may be gone.
func (g *gateway) resync(c *Conn, at downlink.Token) {
	c.sess.at = at
	c.drop(fMoved)
	g.notice(c, protocol.NoticeResync, 0, at.AppendTo(nil))
	if c.has(fInFlight) {
		c.set(fReannounce)
		return
	}
	g.announce(c)
}

// notice sends a notice of the gateway.
func (g *gateway) notice(c *Conn, code int, retryAfterMs int64, resume []byte) {
	m := protocol.Message{Resume: string(resume), MsgType: protocol.Notice, Code: code, RetryAfterMs: retryAfterMs}
	c.k.tmp = m.Append(c.k.tmp[:0])
	c.send(ws.OpText, c.k.tmp)
}

func (g *gateway) drains(c *Conn, within time.Duration) {
	g.notice(c, protocol.NoticeDrain, within.Milliseconds(), nil)
}

// check tells of, and enforces, the end of the token.
func (g *gateway) check(c *Conn, now stamp) {
	switch left := c.sess.expires.sub(now); {
	case left <= 0:
		c.close(EndExpired, "token expired")
	case left <= g.srv.cfg.Times.ExpiryNotice && !c.has(fWarned):
		c.set(fWarned)
		g.notice(c, protocol.NoticeTokenExpiry, left.Milliseconds(), nil)
	}
}

func (g *gateway) next(c *Conn) (stamp, bool) {
	if c.has(fWarned) {
		return c.sess.expires, true
	}
	return c.sess.expires - stampOf(g.srv.cfg.Times.ExpiryNotice), true
}
