// Package fleet is a whole system as real processes, and every way to break it: edges,
// workers, nats-servers, and a store, with a proxy between any two of them.
//
//	clients ─► edge-i ─► nats-j ◄─ worker-k ─► mongo-l  (or ferret)
//	                     nats-j ◄► nats-j'     mongo-l ◄► mongo-l'
//
// Each arrow is a Link with a proxy of its own (toxiproxy, inside this process), which
// can be cut, slowed, or reset. Each box is a Process, which can be killed, paused,
// ended, and started again on the same ports and folders.
//
// It breaks what it is told to break, and notes what ends or complains by itself. It
// chooses no fault, drives no load, and judges nothing.
//
// Everything listens on 127.0.0.1. The processes die with this one, however it ends.
package fleet
