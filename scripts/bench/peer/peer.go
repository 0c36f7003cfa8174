// Package peer holds the reference servers of the benchmark: small honest programs, each
// the idiomatic best use of its library, and the machine's floors. Each runs as a process
// of its own (`bench server <kind> <mode> <address>`), so that its memory and CPU time are
// its alone.
//
// A server takes WebSockets at /ws. In Echo mode it sends each message back; in Fanout
// mode it sends each message to everybody. None of them authenticates, subscribes or
// stores anything: whoever is compared with them does more.
package peer

import (
	"errors"
	"fmt"
	"slices"
)

// Mode is what a server does with a message.
type Mode string

// The modes. A floor may know one of them only.
const (
	Echo   Mode = "echo"
	Fanout Mode = "fanout"
)

// Kind names a reference server.
type Kind string

// The kinds of servers.
const (
	TCP        Kind = "tcp"        // floor: epoll, read and write of as many bytes, never looked at
	Gobwas     Kind = "gobwas"     // floor: epoll and the frame codec of gobwas/ws
	EdgeEcho   Kind = "edge-echo"  // ours: the edge's own loop, handshake and socket rooms
	Nbio       Kind = "nbio"       // lesismal/nbio
	Gws        Kind = "gws"        // lxzan/gws
	Gorilla    Kind = "gorilla"    // gorilla/websocket
	Centrifuge Kind = "centrifuge" // centrifugal/centrifuge, with its own protocol
)

// MessageSize is the payload of a message in Echo mode, in bytes: the TCP floor, which
// looks at nothing, must know it.
const MessageSize = 128

// ErrUnknown is returned for a kind or a mode that is not there.
var ErrUnknown = errors.New("unknown kind of server")

var servers = map[Kind]func(m Mode, addr string) error{
	TCP: serveTCP, Gobwas: serveGobwas, EdgeEcho: serveEdgeEcho,
	Nbio: serveNbio, Gws: serveGws, Gorilla: serveGorilla, Centrifuge: serveCentrifuge,
}

// Serve listens at addr and serves until the process ends, or returns why it cannot.
func Serve(k Kind, m Mode, addr string) error {
	serve := servers[k]
	if serve == nil || !slices.Contains([]Mode{Echo, Fanout}, m) {
		return fmt.Errorf("%s %s: %w", k, m, ErrUnknown)
	}
	if err := serve(m, addr); err != nil {
		return fmt.Errorf("serve %s: %w", k, err)
	}
	return nil
}
