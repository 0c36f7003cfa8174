package socket

import (
	"net/netip"
	"time"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/proxyproto"
)

// TLS ends at a load balancer, so the peer of a connection is seldom its client. Who the
// client is says the PROXY header, on a listener of its own, or X-Forwarded-For. Both are
// taken from trusted proxies alone (handshake.Proxies), and one after the other: whom the
// header names stands for the peer, and if that is a proxy, too, its X-Forwarded-For is
// read. So a client behind a balancer that does not read HTTP cannot lie about itself.
//
// Nothing of it is done when no proxy is trusted. What was told is kept in the connection's
// work while it arrives, for its Connected event, and not for its life: that would be 32
// bytes for something that nobody asks for again. A Connected that is published again after
// NATS has lost everything has no address then.

// expectHeader makes a new connection begin with a PROXY header, if its peer may send one.
func (c *Conn) expectHeader() *handshake.Refusal {
	c.set(fProxied | fHeader)
	peer := c.k.loop.PeerAddr(c.key)
	if c.k.srv.cfg.Rules.Proxies.Trust(peer.Addr()) {
		return nil
	}
	c.k.logProxy("it is not in TRUSTED_PROXIES", peer)
	return handshake.RefuseStranger
}

// readHeader takes the PROXY header off b, which is all that arrived. It returns what
// follows it, nil while it is not complete, or when the connection was refused.
func (c *Conn) readHeader(b []byte) []byte {
	n, source, err := proxyproto.Read(b)
	switch {
	case err != nil:
		c.k.logProxy(err.Error(), c.k.loop.PeerAddr(c.key))
		c.refuse(handshake.RefuseHeader)
		return nil
	case n == 0:
		return nil
	}
	c.drop(fHeader)
	if source.IsValid() {
		c.told(source)
	}
	return b[n:]
}

// told notes who the client is, if it is not the peer.
func (c *Conn) told(client netip.AddrPort) {
	c.busy().client = &client
	c.set(fForwarded)
}

// identify finds out who sent a request, and how it came to the first proxy. The zero
// AddrPort: no proxy is trusted, so it is not asked for.
func (c *Conn) identify(request []byte) (client netip.AddrPort, scheme handshake.Scheme) {
	proxies := c.k.srv.cfg.Rules.Proxies
	if proxies.None() {
		return netip.AddrPort{}, handshake.SchemeUnknown
	}
	peer := c.k.loop.PeerAddr(c.key)
	if c.has(fForwarded) {
		peer = *c.w.client
	} else if c.has(fProxied) { // the proxy's own connection, or it does not know whose
		return peer, handshake.SchemeUnknown
	}
	if !proxies.Trust(peer.Addr()) {
		return peer, handshake.SchemeUnknown
	}
	if client, scheme = proxies.Forwarded(request, peer); client != peer {
		c.told(client)
	}
	return client, scheme
}

// mayTry counts a handshake that is about to be opened for its address. Proxies themselves are not counted:
// behind the address of one are all the clients of which it does not tell.
func (k *keeper) mayTry(client netip.AddrPort) bool {
	s := k.srv
	return s.attempts == nil || !client.IsValid() || s.cfg.Rules.Proxies.Trust(client.Addr()) ||
		s.attempts.Allow(client.Addr(), time.Now())
}

// clientAddr returns the client's address, with its port if that is known; "" when it is
// forgotten.
func (c *Conn) clientAddr() string {
	if c.w != nil && c.w.client != nil {
		return format(*c.w.client)
	}
	if peer := c.k.loop.PeerAddr(c.key); peer.IsValid() && !c.has(fForwarded) {
		return format(peer)
	}
	return ""
}

// format leaves out a port that is not known.
func format(addr netip.AddrPort) string {
	if addr.Port() == 0 {
		return addr.Addr().String()
	}
	return addr.String()
}

// seldom is when a line was logged last; 0: never.
type seldom stamp

// now reports whether the line may be logged again: once a second.
func (s *seldom) now(now stamp) bool {
	if *s != 0 && !stamp(*s).after(time.Second).reached(now) {
		return false
	}
	*s = seldom(max(now, 1))
	return true
}

// logs are the lines about who may not connect: strangers choose how often.
type logs struct {
	origin, address, proxy seldom
}

// logOrigin tells the operator which variable lets the page in.
func (k *keeper) logOrigin(origin string, client netip.AddrPort, scheme handshake.Scheme) {
	if !k.logs.origin.now(k.now()) {
		return
	}
	about := []any{"origin", origin[:min(len(origin), 200)]}
	if client.IsValid() {
		about = append(about, "client", format(client), "scheme", scheme.String())
	}
	k.srv.log.Warn("a page may not connect: its origin is not in ALLOWED_ORIGINS", about...)
}

// logAddress tells who connects too often.
func (k *keeper) logAddress(client netip.AddrPort, scheme handshake.Scheme) {
	if k.logs.address.now(k.now()) {
		k.srv.log.Warn("an address connects more often than ATTEMPT_RATE allows", "client", format(client), "scheme", scheme.String())
	}
}

// logProxy tells why a connection to PROXY_LISTEN is refused.
func (k *keeper) logProxy(problem string, peer netip.AddrPort) {
	if k.logs.proxy.now(k.now()) {
		k.srv.log.Warn("a connection to PROXY_LISTEN is refused", "problem", problem, "peer", format(peer))
	}
}
