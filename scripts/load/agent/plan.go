package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
)

// Traffic says who sends to whom.
type Traffic string

// The kinds of traffic.
const (
	Self   Traffic = "self"   // each connection in turn, to its own user
	Pairs  Traffic = "pairs"  // all users in random pairs, of which a random one talks, either way
	Ring   Traffic = "ring"   // each user in turn, to the next: everybody gets one in a round
	Fanout Traffic = "fanout" // a user with one connection to a user with Plan.Devices of them
)

// MaxDevices is the most connections of a user in Fanout.
const MaxDevices = 30

// Plan is what an agent is told at its start.
type Plan struct {
	URLs    []string
	Traffic Traffic
	Run     string // a word of letters and digits that no other run has
	Index   int    // of this agent
	Conns   int    // of this agent
	Devices int    // of a recipient, with Fanout
	// Secret signs tokens (HS256). Empty: Tokens are used, one for each user of this agent.
	Secret string
	Tokens []string

	// Forgetful clients keep no resume token: they show what a client that does not resume
	// misses.
	Forgetful bool

	ConnectRate float64       // connections begun a second; 0: as fast as they are accepted
	InFlight    int           // handshakes at once
	Size        int           // bytes of a message's msgBody, at least 32
	Tick        time.Duration // between two Ticks
}

// check returns an error when the plan cannot be followed.
func (p *Plan) check() error {
	least := 1
	switch p.Traffic {
	case Self:
	case Pairs, Ring:
		least = 2
	case Fanout:
		if p.Devices < 1 || p.Devices > MaxDevices {
			return fmt.Errorf("a recipient cannot have %d devices: 1 to %d", p.Devices, MaxDevices)
		}
		least = p.Devices + 1
	default:
		return fmt.Errorf("unknown traffic %q", p.Traffic)
	}
	if p.Conns < least {
		return fmt.Errorf("%d connections are too few for traffic %q: at least %d in each process", p.Conns, p.Traffic, least)
	}
	if p.Tick <= 0 || len(p.URLs) == 0 {
		return errors.New("a plan needs a tick and an address")
	}
	return nil
}

// Do is what a Command asks for.
type Do string

// The commands.
const (
	Open   Do = "open"   // have N connections
	Send   Do = "send"   // begin to send at Rate, Count messages or for ever
	Stop   Do = "stop"   // send no more; wait for what is under way
	Finish Do = "finish" // count what is missing, give the last Tick, and end
)

// Command is one line to an agent.
type Command struct {
	Do    Do
	N     int     // Open: connections of this agent, all in all
	Rate  float64 // Send: messages a second of this agent
	Count int     // Send: messages of this agent; 0: until Stop
}

// Tick is one line of an agent.
type Tick struct {
	Counts tally.Counts // since the start
	Times  tally.Times  // since the Tick before
	Paces  tally.Paces  // since the Tick before
	Ends   map[string]int64
	Span   Span
	Last   bool   // nothing follows
	Error  string // why the agent cannot go on
}

// Span holds moments, in Unix nanoseconds; 0: not yet.
type Span struct {
	FirstDial, LastLogin, LastBack, LastSend, LastAck int64
}

// Merge widens s to cover another agent's.
func (s *Span) Merge(o Span) {
	if s.FirstDial == 0 || o.FirstDial != 0 && o.FirstDial < s.FirstDial {
		s.FirstDial = o.FirstDial
	}
	s.LastLogin = max(s.LastLogin, o.LastLogin)
	s.LastBack = max(s.LastBack, o.LastBack)
	s.LastSend = max(s.LastSend, o.LastSend)
	s.LastAck = max(s.LastAck, o.LastAck)
}
