// Package lane brings the uplink to the business: which worker works which lane, in
// what order, and when a message counts as done.
//
// One lane is one work-queue stream with one consumer. A Group runs, for one worker,
// those lanes that are its share; a tenure is the time that it works one of them.
//
//	leases in KV ──► members ──► assign ──► tenure (one per lane that is ours)
//	                                          │ feed: pulls, pin id, contiguous runs
//	                                          │ work: Business.Work, retry in place, dead
//	                                          ▼ acks
//
// Three things keep a sender's messages in order, and none of them alone:
//   - balance: who should work a lane is a hint (rendezvous hash over the leases);
//   - exclusivity: the server delivers to one pinned client (NATS ADR-42);
//   - correctness: a worker only works runs that are contiguous from the consumer's ack
//     floor on, and the store is idempotent. So whoever works works a prefix that
//     nobody can have holes in, also when two do it at once.
//
// A take-over is any message whose Nats-Pin-Id is not that of the last reset, also when
// it is the previous owner's that lost its pin and got it back: what was fetched is
// dropped, the consumer is reset to its ack floor, and the new run must start at
// consumer sequence 1. Any break (a gap, a redelivery, a reconnect) means reset again.
//
// The consumer sequence does not show everything, so a run that jumps over a stream
// sequence counts as broken unless the message is gone from the stream: acknowledged.
//
// When all of NATS' data is lost, what is in flight goes into the lane's next incarnation
// (shared/stream), in front of what was lost. So a frame that names another incarnation
// for the frame before it is acknowledged and left out: its edge closes the connection,
// and the client sends it again behind what was lost.
//
// A worker that dies leaves a lane without a clean release. What was in flight is under
// suspicion then: its successor works it in crowds of 16, each written down before. When a
// worker dies over a crowd, the messages of it are worked one by one, and one that was the
// suspect of two deaths goes to the dead stream. The second time it is worked it is worked
// alone in its process, so that another lane's killer does not count against it. So a
// killer costs four deaths, and a crash for any other reason a write for each 16 of the
// messages that it left behind (there can be 512 in each lane).
//
// A worker that died and comes back under its name within its lease ends the pins that it
// left, and has its lanes again at once; another one waits until lease and pins are over.
//
// The package never NAKs (a NAKed message is delivered behind newer ones), and never
// looks into a payload.
package lane
