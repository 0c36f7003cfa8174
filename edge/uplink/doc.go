// Package uplink publishes what connections send, on JetStream's uplink lanes, and
// tells each sender when its event is stored.
//
//	loops ──Publish──► queue ──► run ──► NATS (own connection) ──► JetStream UP_<lane>
//	  ▲                           │ ▲                                   │
//	  └───────PublishDone─────────┘ └── acks, by one wildcard inbox ◄───┘
//
// One goroutine owns everything that is in flight. An event that is refused (lane full,
// no responders), not answered, or caught by a disconnect is tried again in place, with
// backoff, until Patience is over; then its sender hears ErrStalled.
//
// Order is the sender's duty [r]: it has at most one event here at a time. Retrying an
// event while a later one of the same sender is on its way reorders them, whatever this
// room does; the one test of this room that pipelines shows it.
//
// The room never looks into a payload, never drops an event without a word, and
// promises at-least-once: an event whose ack was lost is stored twice.
package uplink
