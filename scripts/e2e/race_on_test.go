//go:build race

package e2e

import "time"

// buildFlags build the processes like the test itself: with the race detector.
var buildFlags = []string{"-race", "-gcflags=all=-d=checkptr=0"}

// Everything is some ten times slower under the race detector, FerretDB more than that.
const (
	chaosMessages = 1000
	ackTimeout    = 15 * time.Second
	slowdown      = 2
)
