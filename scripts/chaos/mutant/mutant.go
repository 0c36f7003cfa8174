// Package mutant holds the kill table: changes to the production code that each break
// one rule of the design. A checker of histories that does not notice them proves
// nothing.
//
// A mutant is a patch in patches/, applied to copies of the files for one build:
//
//	file, err := mutant.Overlay(root, dir, "no-sweep")
//	go build -overlay <file> -o <binary> ./edge/cmd/edge     (in root)
//
// The production code holds no trace of them. A mutant compiles, starts, and works
// while nothing fails; only the rule is gone.
//
// When the code changes, a patch may no longer fit; Overlay and the test of this
// package say which one. To renew it, edit the production file so that it breaks the
// mutant's Rule again (the old patch shows how it did), and, at the root of the checkout:
//
//	git diff > scripts/chaos/mutant/patches/<name>.patch
//	git checkout <file>
package mutant

import "slices"

// Mutant is one row of the table.
type Mutant struct {
	Name   string // of the patch
	Rule   string // the sentence that it breaks
	Binary string // "edge" or "worker": what is built with it
}

// Killer is no mutant but a patch of the same kind, for the fault matrix: a worker that
// kills itself, with SIGKILL, when it works a frame that holds KillerPhrase.
const Killer = "killer"

// KillerPhrase in a message's body is what kills a worker that is built with Killer.
const KillerPhrase = "kill the worker who reads this"

const (
	edge   = "edge"
	worker = "worker"
)

// All returns the table.
func All() []Mutant { return slices.Clone(table) }

// table has the worker's rules first, but for those of the uplink, then the edge's. The
// comments say under what fault a client can see that the rule is gone, and what it sees.
var table = []Mutant{
	{
		// Writes wait for the primary alone, not even for its journal, and reads show what
		// it has. The secondaries are paused, messages are acknowledged, the primary is
		// killed: the next one does not have them. Lost; and a worker that remembers their
		// numbers leaves a hole.
		Name: "ack-before-commit", Binary: worker,
		Rule: "a send is acknowledged only after a majority has committed it, journaled",
	}, {
		// The lane acknowledges while the frames are still being published, and nobody
		// repeats those that fail. The stream of the receiver's shard takes nothing for
		// longer than Deliver tries (6 s), that of the sender's does: the sender has its
		// echo, the receiver's frame is never stored. Missed, if nothing follows in that
		// conversation.
		Name: "uplink-ack-early", Binary: worker,
		Rule: "the uplink is acknowledged only when every frame that follows from it is on the downlink",
	}, {
		// A send that was stored and comes again (its echo was lost, or its worker died
		// before the lane's ack) is stored once more, under another number.
		Name: "no-unique-key", Binary: worker,
		Rule: "(sender, clientMsgId) is unique in the store, for ever",
	}, {
		// A batch holds a message that is stored already and new ones behind it, of one
		// conversation: the first is refused, and its number is never used. It takes a
		// client that comes back and repeats its outbox, or a worker whose acks were lost,
		// under load; or a worker that dies between the store and the downlink: its successor
		// finds both in one crowd.
		Name: "unordered-batch", Binary: worker,
		Rule: "a failed insert never lets a later message of its conversation overtake it",
	}, {
		// After an insert without an answer the worker looks, with a local read, how far the
		// conversation goes, and remembers that. The secondaries are paused, a message is
		// sent, the worker tries it once (5 s), the primary is killed: what it saw is rolled
		// back, and the message is stored one number too high. A hole.
		Name: "local-last", Binary: worker,
		Rule: "a cached last number comes only from what a majority has",
	}, {
		// JetStream takes a repeated send for the one that it has, and no worker sees it. A
		// frame is refused while its connection is gone; the client repeats it on the next
		// connection and never hears. Or two senders of one lane choose the same id: the
		// second one's message is acknowledged by nobody.
		Name: "msg-id", Binary: edge,
		Rule: "a repeated send reaches a worker and is answered again",
	}, {
		// No worker works, and more is sent than a lane holds: the oldest goes. Its sender
		// repeats it, but what it sent behind is stored before.
		Name: "discard-old", Binary: worker,
		Rule: "a full lane refuses, it never throws away what it holds",
	}, {
		// The owner dies with messages in flight, fewer than the consumer may have
		// unacknowledged (512). Its successor begins with what was sent since; what was in
		// flight comes when its ack wait (10 s) is over. Out of order.
		Name: "no-reset", Binary: worker,
		Rule: "a take-over starts at the acknowledgement floor",
	}, {
		// The owner is paused, the next owner takes over and is paused in its turn, with
		// messages in flight; the first one wakes and is pinned again. It goes on behind
		// those in flight. Out of order.
		Name: "woken-owner", Binary: worker,
		Rule: "a pin that is not that of the last reset is a take-over, also for the previous owner",
	}, {
		// The lane is full, and several frames of one connection wait to be tried again,
		// each for a time of its own: when there is room they arrive in any order.
		Name: "pipelined", Binary: edge,
		Rule: "one publish of a connection is in flight at a time",
	}, {
		// The edge's server is a follower that lags (its routes are slow). A message that is
		// stored around a login is too old for the subscription, which is not known at the
		// leader yet, and too new for the replica that answers. Missed, until a sweep.
		Name: "no-marker", Binary: edge,
		Rule: "a login waits for a marker, and believes only a replica that knows it",
	}, {
		// The edge's connection to NATS, or a route between two servers, is cut while a
		// message is delivered, and nothing follows. Missed for ever.
		Name: "no-sweep", Binary: edge,
		Rule: "an edge proves from time to time, and after each reconnect, that its users missed nothing",
	}, {
		// A client is away while one message of a conversation comes, and resumes. Missed,
		// although it was told that it has everything.
		Name: "resume-late", Binary: edge,
		Rule: "a resumed client gets everything behind its token",
	}, {
		// A client does not read for a while (less than 20 s, or it is closed for that),
		// and more comes than may wait for it. It goes on reading behind the lost frames.
		Name: "drop-slow", Binary: edge,
		Rule: "a reader that cannot keep up is closed, nothing is dropped silently",
	},
}
