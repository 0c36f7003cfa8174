// Package feed brings the live frames of an edge's users from NATS, at the price of nothing
// but a line on the wire for each of them: nats.go keeps an object, a map entry and a
// string for a subscription, which was the largest part of an idle connection's memory.
//
//	           ┌──────────────────── Feed ────────────────────┐
//	Subscribe ─┼─► SUB, UNSUB ─┐                              │
//	           │               ▼ in this order                │
//	Request ───┼─► nats.go ─► wire ◄──────► natsconn's TLS ◄──┼──► nats-server
//	           │        ▲       │                             │
//	           │        └───────┤ INFO, PONG, -ERR, answers   │
//	Batches ◄──┼────────────────┘ frames of our subscriptions │
//	           └──────────────────────────────────────────────┘
//
// The connection is nats.go's, made by natsconn like every other one: credentials, TLS,
// servers, pings, reconnects, lame ducks and the log are theirs. The room stands between it
// and the socket (wire): it writes subscriptions of its own in between nats.go's operations,
// and takes the frames of these out of what is read. What is not of them passes through as
// it is.
//
// A subscription's id on the wire is the user's name behind a letter that none of nats.go's
// ids begins with. So nothing is kept of it: the frame's subject says whose it is, and the
// owner's table of users is what a new connection is subscribed from.
//
// Order is the point: a Request goes out behind every subscription that was made before it,
// on the same connection, or fails.
//
// There is no queue. Frames stand in the buffer that they were read into, of which there
// are two; while the owner has both, nothing is read. An owner that stays behind is cut off
// by the server, and finds out on the next connection what it missed.
package feed
