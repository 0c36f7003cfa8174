// Package loop tells its owner which descriptor is ready: raw sockets from accept4,
// one level-triggered epoll and one goroutine for each Loop, a mailbox that any
// goroutine may post to, and a coarse timer wheel with one timer per connection that
// lives in the connection's slot.
//
//	           Post(M) from any goroutine
//	                     │
//	accept4 ─┐           ▼
//	sockets ─┼─ epoll ─► Loop ──► Handler: Accept, Readable, Writable, Hangup,
//	timerfd ─┤                    Message, Timeout, Tick, TurnEnd
//	eventfd ─┘
//
// One turn is: poll, messages, ready sockets and timers, TurnEnd. While turns find work
// the loop polls without waiting and yields to other goroutines between turns; when a
// turn finds none, the goroutine parks in Go's own poller until the epoll descriptor
// becomes readable. So an idle loop holds no thread and no P (golang/go#76290).
//
// It knows neither WebSocket nor NATS, starts no goroutine, and never blocks on a socket.
package loop
