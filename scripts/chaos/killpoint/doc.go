// Package killpoint holds the tests of a worker that dies at the worst moments: before
// and after it stores a batch, before and after it publishes the frames, before and after
// it acknowledges the uplink. It holds nothing but tests.
//
//	uplink ──► Append ──► Deliver ──► +ACK
//	          ▲      ▲   ▲       ▲   ▲    ▲
//	     before,   after of insert, publish, ack
//
// The worker is the test binary itself, started again as a process. It wires the rooms
// of a real worker, with decorators around the store, the downlink and the connection to
// NATS that kill the process (SIGKILL) when a marked message comes to the point. So the
// rooms themselves know nothing of these tests.
package killpoint
