// Package downlink brings frames from JetStream to the receivers (sockets) of this
// edge, each once and in order as long as a resume token holds.
//
//	                 ┌────────────── hub (one goroutine) ──────────────┐
//	loops ─Attach──► │ mailbox                                         │
//	                 │    shard 0: users ─ positions ─ holds           │ ──► Receiver
//	im.live.<s>.> ─► │ feed (subscriptions, 1st connection)            │
//	                 │    │ jobs                        ▲ results      │
//	                 │    ▼                             │              │
//	                 │ prober (one goroutine per shard while it works) │
//	                 └────┼─────────────────────────────┼──────────────┘
//	                      ▼ marker (1st connection)     │ direct gets (2nd connection)
//	                   im.mark.<s>.<edge>            DOWN_<shards>_<epoch>_<s>
//
// Live frames can vanish without a trace [r], so no frame is believed to have arrived
// because it was published: every user has a position, and each step of it is proven.
//
//   - A frame tells its sequence and that of the user's frame before it
//     (Nats-Last-Sequence): a hole between it and the position is read from the stream,
//     the frames behind it wait.
//   - A round proves positions without frames. It publishes a marker on the connection of
//     the subscriptions; its PubAck says (stream, M). Whatever was stored up to M is read
//     from the stream, whatever comes later is live: the marker went the way of the
//     subscription, behind it. Logins, repairs and sweeps that come up while a round
//     works share the next one.
//   - A read is believed when one replica gave all of the answer and knows the marker, and
//     complete when a replica that knows a marker published after the read still holds the
//     first message behind the position: the limits evict from the front only.
//   - All users are swept so once a minute, and at once when anything was wrong; but where
//     sweeps take long they keep a distance, because an overload looks like a loss. What
//     was stored behind the marker is not judged by a sweep: it is on its way, until the
//     next sweep finds that nothing has come.
//
// A known limit: replicas evict by age each on a timer of its own, so what one of three
// replicas answers may be one tick of that timer apart from what another one held.
//
// All sequences are compared within one incarnation of a stream, whose name every frame
// and PubAck carries. Another incarnation, or one that went back behind what was seen,
// starts all positions anew, and everybody is told by Resync at a bounded rate.
//
// The room never reads a payload beyond its first two bytes, never imports the uplink,
// and holds nothing that a crash could lose.
package downlink
