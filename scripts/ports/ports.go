// Package ports gives addresses to servers that are started, or started again, later.
//
// A port that the kernel picks is one of those that it also picks for outgoing
// connections, of which load tools and tests have thousands: it may be gone before the
// server comes, or while it is down.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

const (
	lowestPort   = 10_000 // well-known services live below
	ephemeralLow = 32_768 // Linux's default start of the ports for outgoing connections
	portTries    = 200
)

// ErrNone is returned when no port below the ephemeral range is free.
var ErrNone = errors.New("no free port")

// taken are the ports that this process gave away, for ever: a process that is down now
// will want its port back.
var taken struct {
	sync.Mutex
	ports map[int]bool
}

// Take returns an address of 127.0.0.1 that nobody listens on, and that no outgoing
// connection gets: its port is below the range from which the kernel takes those. This
// process gets each one once. Another process may take it before it is used.
func Take() (string, error) {
	taken.Lock()
	defer taken.Unlock()
	if taken.ports == nil {
		taken.ports = map[int]bool{}
	}
	below := ephemeralStart()
	if below <= lowestPort {
		return "", fmt.Errorf("%w between %d and %d", ErrNone, lowestPort, below)
	}
	for range portTries {
		port := lowestPort + rand.IntN(below-lowestPort)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil || taken.ports[port] {
			if err == nil {
				_ = l.Close()
			}
			continue
		}
		_ = l.Close()
		taken.ports[port] = true
		return addr, nil
	}
	return "", fmt.Errorf("%w between %d and %d", ErrNone, lowestPort, below)
}

func ephemeralStart() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ephemeralLow
	}
	var low, high int
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		return ephemeralLow
	}
	return low
}
