// Package wire is the WebSocket client of the load tools: many thousand connections in
// one goroutine, against any WebSocket server.
//
//	Dial ──► queue ──rate, cap──► connect ─► handshake ─► open ─► Handler.Message …
//	                                                       │
//	                              Handler.Timer ◄─ wheel ◄─┘   Handler.Closed
//
// A Client is one epoll loop on raw descriptors. A connection is one Conn of some 150
// bytes in a slice that is made once; it has no goroutine, no timer of the runtime, and
// no buffer while nothing is half read or half written. Everything runs on the Client's
// goroutine, so nothing is locked; Post is the door for other goroutines. For more cores
// or more descriptors run several Clients, or several processes.
//
// It knows WebSocket and nothing of what is in a message. It makes no TLS: raw
// descriptors and crypto/tls do not mix, so wss addresses are refused.
//
// It does not use edge/loop, for two reasons: that loop's only way in is a listener, and
// an instrument that shares the loop of what it measures would share its faults too.
package wire
