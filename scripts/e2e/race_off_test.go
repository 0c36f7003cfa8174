//go:build !race

package e2e

import "time"

var buildFlags []string

const (
	chaosMessages = 5000
	ackTimeout    = 3 * time.Second // of the clients
	slowdown      = 1               // factor of what a test may take
)
