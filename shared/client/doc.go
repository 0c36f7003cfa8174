// Package client is the Go SDK of the client protocol (shared/PROTOCOL.md): it logs in,
// sends with retries until each send is stored or refused, and hands every message of
// the user to one channel, each exactly once and in order of its conversation, across
// any reconnect.
//
// It knows nothing of NATS, of the store, or of what a message body means.
//
//	            Send, History, …            Events
//	                 │ commands               ▲ one at a time, never dropped
//	                 ▼                        │
//	┌──────────────── Run: one goroutine owns everything ───────────────┐
//	│ outbox (unacknowledged sends)   inbox (next seq per conversation) │
//	└───────┬───────────────────────────────────────────────▲───────────┘
//	        │ frames out                                    │ frames in
//	        ▼                                               │
//	     writer ─────────────────── socket ────────────► reader
//
// # Life of a connection
//
//	dial → login ──resumed:true──► live: what was missed comes by itself
//	        │  └──resumed:false──► live + sync: what was missed is asked for
//	        └─ first ever ───────► live + baseline: the conversations' ends are asked for
//
// A client without a saved State starts at the end of each conversation: it lists the
// user's conversations once and delivers what is stored after that. Its own sends leave
// only when that list is there, so they are always among its events. With
// Options.FromStart it delivers everything that history holds instead.
//
// # Queues
//
// Events are never dropped. When Options.EventBuffer events wait because nobody reads
// the channel, the client stops reading its socket; the edge then closes the connection
// of a slow reader, and once the channel is read again the client reconnects and
// resumes. Sends go on meanwhile; History and its kin wait, so a program that calls
// them from the goroutine that reads Events should give them a context with a deadline.
// The outbox holds Options.OutboxLimit sends; when it is full, Send waits.
package client
