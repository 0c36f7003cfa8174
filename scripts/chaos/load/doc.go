// Package load is the clients of a run of chaos: users of the Go SDK who talk to each
// other at a set rate, lose their connections, crash and come back, and write all that
// they do and see into a history. It uses what users use, and judges nothing.
//
//	Load ─ one goroutine a device sends ─► client ─► tap ─► edge
//	         one goroutine a device  ◄─ events ─┘     │
//	                        └──────► history ◄────────┘
//
// A device is one client of one user. It has lives: when it is stopped and started again
// its state goes with it, and after a crash an older state, as from a disk.
package load
