// Package socket holds the WebSocket connections of an edge: it opens them, parses their
// frames, answers login and heartbeat, relays everything else to the uplink unread, and
// writes what the downlink brings.
//
//	loop ──► keeper (one per loop, owns its Conns without a lock)
//	            │
//	            ├─ client    whose connection it is: PROXY header, X-Forwarded-For; how often it may try
//	            ├─ open      handshake ──► 101, or an HTTP refusal
//	            ├─ parser    bytes ──► messages and control frames (RFC 6455)
//	            ├─ gateway   login ─► pool ─► Verifier        (the client protocol)
//	            │            heartbeat ─► answer
//	            │            anything else ─► Uplink.Publish, then no reading until PublishDone
//	            ├─ write     one write for each connection and turn
//	            ├─ timeout   one timer for each connection
//	            └─ close     close frame, wait for the peer's, Disconnected
//
// A connection at rest is its Conn and nothing else. What a connection needs while
// something is going on (work, buffers) is lent by its keeper and counted against a
// budget. The states of a connection:
//
//	handshake ─► login ─► verify ─► attach ─► open ─► closing ─► closed
//	                ▲        (the token of a handshake skips login)
//	                └─ 5 s, then 4409
//
// Other goroutines reach a Conn by the methods in post.go, which send a message to its
// loop. The layer above the WebSocket is an interface, so that a server which only
// echoes (NewEcho) is made of the same code.
//
// The room never decodes a business payload, never touches NATS, and never logs for a
// frame or a connection.
package socket
