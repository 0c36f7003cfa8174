package handshake

import (
	"bytes"
	"net/netip"
	"strings"
)

// Scheme is how a client talked to the first proxy.
type Scheme uint8

// The schemes.
const (
	SchemeUnknown Scheme = iota // nobody who is believed has told
	SchemeHTTP                  // in clear text
	SchemeHTTPS
)

// String returns http, https, or unknown.
func (s Scheme) String() string {
	return [...]string{SchemeUnknown: "unknown", SchemeHTTP: "http", SchemeHTTPS: "https"}[s]
}

// Forwarded reads out of a whole request who its client is. The request came from peer,
// which is one of p: nobody else's headers are to be read.
//
// X-Forwarded-For is a list in which each proxy has appended whom it saw. It is walked from
// the right, because whatever is left of the first address that is no proxy's was written
// by a stranger: that address is the client. An element that is no address ends the walk,
// and the client is whom the proxy right of it has seen: nothing beyond it is certain. When
// all are proxies the leftmost is the client.
//
// X-Forwarded-Proto is one word of the last proxy. A list, or a second header, tells
// nothing.
//
// The port of the result is 0 when it is not known, which is the rule.
func (p Proxies) Forwarded(request []byte, peer netip.AddrPort) (client netip.AddrPort, scheme Scheme) {
	protos := 0
	_, rest := cutLine(request) // the request line
	for {
		var line []byte
		if line, rest = cutLine(rest); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case is(name, "x-forwarded-for"):
			client = p.walk(client, value)
		case is(name, "x-forwarded-proto"):
			protos++
			scheme = schemeOf(bytes.Trim(value, " \t"))
		}
	}
	if !client.IsValid() {
		client = peer
	}
	if protos != 1 {
		scheme = SchemeUnknown
	}
	return client, scheme
}

// walk goes on with one line of the list. It goes from left to right and comes to the same:
// the result is the last address that is no proxy's, or else the first proxy behind the
// last element that is no address; the zero AddrPort when there is neither.
func (p Proxies) walk(client netip.AddrPort, list []byte) netip.AddrPort {
	for element := range bytes.SplitSeq(list, []byte(",")) {
		addr, ok := parseElement(bytes.Trim(element, " \t"))
		switch {
		case !ok:
			client = netip.AddrPort{}
		case !client.IsValid() || !p.Trust(addr.Addr()):
			client = addr
		}
	}
	return client
}

// maxElement is longer than [IPv6]:port.
const maxElement = 64

// parseElement reads 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
// An address with a zone is none: it means something on another machine alone.
func parseElement(b []byte) (addr netip.AddrPort, ok bool) {
	if len(b) == 0 || len(b) > maxElement {
		return netip.AddrPort{}, false
	}
	s := string(b)
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") { // only IPv6 stands in brackets
		a, err := netip.ParseAddr(s[1 : len(s)-1])
		return netip.AddrPortFrom(a.Unmap(), 0), err == nil && a.Is6() && a.Zone() == ""
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), a.Zone() == ""
	}
	ap, err := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err == nil && ap.Addr().Zone() == ""
}

func schemeOf(value []byte) Scheme {
	switch {
	case is(value, "https"), is(value, "wss"):
		return SchemeHTTPS
	case is(value, "http"), is(value, "ws"):
		return SchemeHTTP
	}
	return SchemeUnknown
}
