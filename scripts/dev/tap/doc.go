// Package tap stands between a MongoDB client and its server, passes every byte on as it
// is, and tells when the documents that went in by insert commands were acknowledged.
// The development process watches the store with it, so that the worker needs no code
// for that.
//
// It never changes, delays or holds back a byte. What it does not understand (compressed
// or encrypted traffic) passes unseen.
package tap
