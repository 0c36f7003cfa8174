package system

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

const (
	lowestPort   = 10_000
	ephemeralLow = 32_768 // Linux's default start of the ports for outgoing connections
	portTries    = 500
)

var errNoPort = errors.New("no free port below those of outgoing connections")

// ports gives addresses away, each once.
type ports map[int]bool

// take returns an address of 127.0.0.1 that nobody listens on and that no outgoing
// connection gets: an edge that is started again must find its port free.
func (p ports) take() (string, error) {
	for below, tries := ephemeralStart(), 0; tries < portTries && below > lowestPort; tries++ {
		port := lowestPort + rand.IntN(below-lowestPort)
		if p[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		p[port] = true
		return l.Addr().String(), l.Close()
	}
	return "", errNoPort
}

func ephemeralStart() int {
	var low int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &low)
	}
	if err != nil {
		return ephemeralLow
	}
	return low
}
