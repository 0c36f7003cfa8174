// Package proxyproto reads the header of the PROXY protocol, version 2, with which a load
// balancer that does not read HTTP says whose connection it passes on:
// haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2.
//
// It reads out of memory, step by step as bytes arrive. It never reads from a socket, never
// waits, keeps no bytes, and decides nothing about who may send a header. Version 1, the
// line of text, is refused: who can send it can send version 2.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// MaxBytes is the most bytes of a header. Senders keep below what fits one packet.
const MaxBytes = 2 << 10

// The layout. Nothing of it changes: another version has another number.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n" // bytes 0 to 11; in no HTTP request, in no TLS hello

	atVersion = 12 // high half: version, low half: command
	atFamily  = 13 // high half: address family, low half: transport
	atLength  = 14 // of what follows, big endian
	atSource  = 16 // source address, destination address, source port, destination port; then TLVs
)

const (
	version2 = 0x20

	cmdLocal = 0x0 // the proxy's own connection, a health check for example
	cmdProxy = 0x1 // somebody else's

	familyIPv4 = 0x10 // 0x00: unspecified
	familyIPv6 = 0x20
	familyUnix = 0x30

	transportStream = 0x1 // 0x0: unspecified
	transportDgram  = 0x2
)

// What is wrong with a header. It never gets better with more bytes.
var (
	ErrSignature = errors.New("the connection does not begin with the signature of the PROXY protocol, version 2")
	ErrVersion   = errors.New("the PROXY header is of another version than 2")
	ErrCommand   = errors.New("the PROXY header has an unknown command")
	ErrFamily    = errors.New("the PROXY header has an unknown address family or transport")
	ErrLength    = errors.New("the PROXY header is too short for its addresses")
	ErrTooLong   = errors.New("the PROXY header is longer than 2048 bytes")
)

// Read takes everything that arrived so far and returns the length of the header, 0 while
// it is not complete, or what is certainly wrong with it. What follows the header is the
// caller's. b of any length may be given; each call looks at it anew, at no more than
// MaxBytes.
//
// source is the client as the sender saw it. The zero AddrPort says that there is none to
// tell: the connection is the sender's own, or of a kind that the sender or this package
// does not know (an unspecified one, a Unix socket, UDP).
func Read(b []byte) (n int, source netip.AddrPort, err error) {
	known := min(len(b), len(signature))
	if string(b[:known]) != signature[:known] {
		return 0, netip.AddrPort{}, ErrSignature
	}
	if len(b) <= atVersion {
		return 0, netip.AddrPort{}, nil
	}
	command := b[atVersion] & 0x0f
	switch {
	case b[atVersion]&0xf0 != version2:
		return 0, netip.AddrPort{}, ErrVersion
	case command != cmdLocal && command != cmdProxy:
		return 0, netip.AddrPort{}, ErrCommand
	}
	if len(b) < atSource {
		return 0, netip.AddrPort{}, nil
	}
	family := b[atFamily]
	length := int(binary.BigEndian.Uint16(b[atLength:]))
	n = atSource + length
	switch {
	case command == cmdProxy && !knownFamily(family):
		return 0, netip.AddrPort{}, ErrFamily
	case command == cmdProxy && length < addressBytes(family):
		return 0, netip.AddrPort{}, ErrLength
	case n > MaxBytes:
		return 0, netip.AddrPort{}, ErrTooLong
	case len(b) < n:
		return 0, netip.AddrPort{}, nil
	}
	if command == cmdProxy {
		source = sourceOf(family, b[atSource:n])
	}
	return n, source, nil
}

func knownFamily(b byte) bool { return b&0xf0 <= familyUnix && b&0x0f <= transportDgram }

// addressBytes is how long the addresses of a family are, with their ports. Those of
// AF_UNIX are not read, and skipped by the header's length.
func addressBytes(family byte) int {
	switch family & 0xf0 {
	case familyIPv4:
		return 4 + 4 + 2 + 2
	case familyIPv6:
		return 16 + 16 + 2 + 2
	case familyUnix:
		return 108 + 108
	}
	return 0
}

// sourceOf reads the source of a TCP connection. TLVs behind it are not looked at.
func sourceOf(family byte, addresses []byte) netip.AddrPort {
	if family&0x0f != transportStream {
		return netip.AddrPort{}
	}
	switch family & 0xf0 {
	case familyIPv4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addresses)), binary.BigEndian.Uint16(addresses[8:]))
	case familyIPv6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addresses)).Unmap(), binary.BigEndian.Uint16(addresses[32:]))
	}
	return netip.AddrPort{}
}
