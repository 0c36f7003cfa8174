// Package conformance says what a WebSocket server must do (RFC 6455), as a table of
// cases, and plays them against one.
//
// The cases have the numbers, and send the bytes, of the Autobahn test suite (0.8.2),
// groups 1 to 7, 9 and 10: all of it but compression, 301 cases. The verdicts are
// stricter than the suite's: where that takes OK or NON-STRICT, and where it only tells
// what it saw (7.1.6, 7.13.1, 7.13.2), one outcome is demanded here.
//
//	Cases ──► Script ──► Play ──► nil, or what was wrong
//	                      │
//	                      └─ writes a part, reads what must come before the next one …
//	                         at last: the close frame's code, the end of TCP, nothing else
//
// The server under test is made of the edge's own rooms (StartEcho). Where its reads cut
// the stream is decided there, by Pieces: a network merges and splits what was written.
//
// The suite itself, which nobody here wrote, is run by autobahn. The package never skips
// a case, and never waits for a time to pass but in the four cases that say that nothing
// may arrive (6.4).
package conformance
