// Package army attacks an edge: many connections, one goroutine, no memory to speak of,
// and never more than a set number of connects and writes a second, so that what it costs
// the machine is known.
//
// An attacker that is thrown out comes back.
package army

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Attack is what each attacker does. Its fields are read only.
type Attack struct {
	Name string
	What string // one line for people

	N     int           // attackers
	Every time.Duration // between two steps of one attacker
	Dials int           // connects a second, all attackers together
	// First is what attacker i sends once, Stream what it sends then, over and over, at most
	// Piece bytes a step (0: all that the socket takes). Without a Stream it waits.
	First  func(i int) []byte
	Stream []byte
	Piece  int
	Deaf   bool // reads nothing

	// Victim names the users who are sent Frame bytes Frames times a second, all together.
	Victim        func(i int) string
	Frame, Frames int

	// Holds is the most bytes that one attacker can make the edge hold.
	Holds int64
	// Proof names what the edge must have counted, as it is printed without its prefix:
	// one of them at least. It shows that the attack came through.
	Proof []string
}

// soldier is one attacker.
type soldier struct {
	fd    int    // -1: none
	first []byte // what is left of Attack.First
	at    int    // in Attack.Stream
	fresh bool   // nothing was read yet
}

// Report is what an army did.
type Report struct {
	Dials    int            // connections made
	Bytes    int            // sent
	Statuses map[string]int // of HTTP answers
	Most     int            // connections at one time
}

// Army runs one attack. Owned by the goroutine in Run.
type Army struct {
	attack   *Attack
	to       netip.AddrPort
	soldiers []soldier
	open     int
	scratch  []byte
	budget   float64 // dials that may be made now
	report   Report
}

// New returns an army that does nothing yet.
func New(a *Attack, to netip.AddrPort) *Army {
	y := &Army{attack: a, to: to, soldiers: make([]soldier, a.N), scratch: make([]byte, 64<<10)}
	y.report.Statuses = map[string]int{}
	for i := range y.soldiers {
		y.soldiers[i].fd = -1
	}
	return y
}

// Run attacks until ctx ends, then resets all connections.
func (y *Army) Run(ctx context.Context) Report {
	const grain = 5 * time.Millisecond
	tick := time.NewTicker(grain)
	defer tick.Stop()
	last, next, due := time.Now(), 0, 0.0
	for {
		select {
		case <-ctx.Done():
			y.disband()
			return y.report
		case <-tick.C:
		}
		now := time.Now()
		passed := min(now.Sub(last), 20*grain) // what was slept through is not made up for
		last = now
		y.budget = min(y.budget+passed.Seconds()*float64(y.attack.Dials), float64(y.attack.Dials)/10+1)
		for due += float64(len(y.soldiers)) * passed.Seconds() / y.attack.Every.Seconds(); due >= 1; due-- {
			y.step(next)
			next = (next + 1) % len(y.soldiers)
		}
	}
}

func (y *Army) disband() {
	for i := range y.soldiers {
		y.drop(&y.soldiers[i])
	}
}

func (y *Army) drop(s *soldier) {
	if s.fd >= 0 {
		_ = unix.Close(s.fd) // with a reset: SO_LINGER is 0
		s.fd = -1
		y.open--
	}
}

func (y *Army) step(i int) {
	s := &y.soldiers[i]
	if s.fd < 0 && !y.enlist(s, i) {
		return
	}
	if !y.listen(s) || !y.fire(s) {
		y.drop(s)
	}
}

func (y *Army) enlist(s *soldier, i int) bool {
	if y.budget < 1 {
		return false
	}
	y.budget--
	fd, err := dial(y.to, y.report.Dials)
	if err != nil {
		return false
	}
	y.report.Dials++
	y.open++
	y.report.Most = max(y.report.Most, y.open)
	*s = soldier{fd: fd, first: y.attack.First(i), fresh: true}
	return true
}

// listen takes what the edge says, or only looks whether it is over. It reports whether
// the connection stands.
func (y *Army) listen(s *soldier) bool {
	if y.attack.Deaf {
		return !over(s.fd)
	}
	for range 16 {
		n, ok := receive(s.fd, y.scratch)
		if s.fresh && n >= len("HTTP/1.1 xxx") {
			y.report.Statuses[string(y.scratch[9:12])]++
			s.fresh = false
		}
		if n < len(y.scratch) {
			return ok
		}
	}
	return true
}

func (y *Army) fire(s *soldier) bool {
	if len(s.first) > 0 {
		n, ok := send(s.fd, s.first)
		s.first = s.first[n:]
		y.report.Bytes += n
		return ok
	}
	left := y.attack.Piece
	if left == 0 {
		left = len(y.attack.Stream)
	}
	for left > 0 && len(y.attack.Stream) > 0 {
		n, ok := send(s.fd, y.attack.Stream[s.at:min(len(y.attack.Stream), s.at+left)])
		if s.at += n; s.at == len(y.attack.Stream) {
			s.at = 0
		}
		y.report.Bytes += n
		if left -= n; n == 0 {
			return ok
		}
	}
	return true
}
