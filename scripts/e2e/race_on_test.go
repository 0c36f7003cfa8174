//go:build race

package e2e

// buildFlags build the processes like the test itself: with the race detector.
var buildFlags = []string{"-race", "-gcflags=all=-d=checkptr=0"}
