package stream

import "time"

// An uplink lane's stream keeps its name when all of NATS' data was lost and it is made
// again: autoscalers are told its name. So which incarnation a message is in stands in
// its sequence number:
//
//	sequence = incarnation << 31 | position
//
// The incarnation is the number of 250 ms ticks from 2025 to the stream's creation, and
// the stream's first sequence (first_seq) is the first with that incarnation. So an
// acknowledgement that was meant for an older incarnation names a sequence that the
// stream does not have, and each PubAck tells which incarnation the message is in. The
// numbers fit into 19 digits and an int64 until 2059.
//
// The 2³¹st message of a lane looks as if it were in a new incarnation. That costs its
// senders a reconnect. A stream that an older worker made has incarnation 0.
const (
	positionBits    = 31
	incarnationTick = 250 * time.Millisecond
)

var incarnationEpoch = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// FirstSeq is the first sequence of an uplink lane's stream that is created at t. Two
// creations in the same tick have the same number; workers whose clocks differ may come
// to a smaller one after a larger, which does no harm.
func FirstSeq(t time.Time) uint64 {
	return uint64(uint32(t.Sub(incarnationEpoch)/incarnationTick)) << positionBits
}

// Incarnation tells which incarnation of its lane a message with that sequence is in.
// Two of them can be compared for being the same, and mean nothing else.
func Incarnation(seq uint64) uint32 { return uint32(seq >> positionBits) }
