package site

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/usage"
)

// Memory returns the resident bytes of the edge now, and the most since ResetPeak.
func (s *Site) Memory() (now, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		var into *int64
		switch name {
		case "VmRSS":
			into = &now
		case "VmHWM":
			into = &peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errProc, err)
		}
		*into = kib << 10
	}
	if now == 0 || peak == 0 {
		return 0, 0, errProc
	}
	return now, peak, nil
}

// ResetPeak makes the peak what it is now.
func (s *Site) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.Pid()), []byte("5"), 0) // see proc(5)
}

// Unread returns the bytes that wait in the kernel for the edge to read them, over all of its
// connections.
func (s *Site) Unread() (int64, error) {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	local, sum := fmt.Sprintf(":%04X", n), int64(0)
	for line := range strings.Lines(string(text)) {
		field := strings.Fields(line) // sl, local, remote, state, tx_queue:rx_queue
		if len(field) < 5 || !strings.HasSuffix(field[1], local) {
			continue
		}
		_, rx, _ := strings.Cut(field[4], ":")
		bytes, err := strconv.ParseInt(rx, 16, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errProc, err)
		}
		sum += bytes
	}
	return sum, nil
}

// CPU returns what the edge has used so far.
func (s *Site) CPU() (time.Duration, error) { return usage.CPU(s.Pid()) }
