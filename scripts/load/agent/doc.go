// Package agent is one process of the load: it opens its share of the connections, sends
// its share of the messages, and matches what comes with what was sent.
//
//	stdin:  Plan, then Commands ──► agent ──► wire ══► gateway
//	stdout: a Tick in each interval  ◄──┘
//
// All of it runs on the goroutine of its wire.Client. Both ends of a message are
// connections of the same agent, so one clock times them and one table knows what is
// missing.
//
// Sends are an open loop: each has a time at which it is due, whatever the gateway does,
// and every latency counts from that time. A send whose connection is down waits in the
// connection's outbox, as a client's must, and its time runs on.
//
// An agent is a thin client: it repeats its outbox on a new connection and presents its
// resume token, but it keeps no cursors and pulls no history. So what the gateway says it
// cannot resume, counts as missing.
package agent
