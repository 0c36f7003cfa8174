package socket

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/shared/protocol"
)

// Config is what a Server is made of. Only Edge and Rules must be set.
type Config struct {
	// Edge is the name of this edge, a plain token ([A-Za-z0-9_-]).
	Edge string
	// Rules are the path and the origins of the handshake.
	Rules handshake.Rules
	// Loops is how many goroutines own connections; 0 is one per CPU that Go may use.
	Loops int
	// DrainRate is how many sockets Drain closes in a second; 0 is 500. Higher ends a
	// drain sooner and makes the other edges take a steeper wave of logins.
	DrainRate int
	// Attempts is how many handshakes a second one client address may try for ever, and
	// attempts.Burst seconds' worth at once; 0: no bound. Whose address it is must be known:
	// nothing is bounded while Rules.Proxies is empty.
	Attempts int
	// Verifiers is how many tokens are verified at once; 0 is 4. A verification can wait
	// for a key that is fetched.
	Verifiers int
	// ShortOfMemory reports that no new connection may be taken; nil: never. It is asked
	// at each one, by any loop.
	ShortOfMemory func() bool
	// LoginsLate reports that those who log in wait too long for the downlink, so that
	// more of them would only wait in vain; nil: never. It is asked like ShortOfMemory.
	LoginsLate func() bool

	Limits Limits
	Rates  Rates
	Times  Times
}

// Limits bound what connections take. A zero field is its default.
type Limits struct {
	// Connections, 0: what the descriptor limit of the process allows, less 512.
	Connections int
	// Arriving is how many connections may be on their way in, from the handshake to the
	// end of the login; 0 is 8192. See arrivals.go.
	Arriving int
	// Frame is the most bytes of a whole message; 0 is protocol.MaxFrame.
	Frame int
	// LoginFrame is the most bytes of a message before the login; 0 is 16 KiB.
	LoginFrame int
	// Fragments is the most frames of a message; 0 is 1024.
	Fragments int
	// Pending is the most bytes that wait for a reader; 0 is 1 MiB. At least twice
	// downlink.MaxReplayBytes: a replay and what was held meanwhile come in one burst.
	Pending int
	// Buffered is the most bytes of all connections together that wait for anything;
	// 0 is 512 MiB. A connection that needs more is closed with a reconnectable code, one
	// that needs much before one that needs little.
	Buffered int64
}

// Times are the periods of a connection. A zero field is its default.
type Times struct {
	Heartbeat    time.Duration // 25 s; a connection that is silent for 2.5 of them is closed
	Handshake    time.Duration // 5 s for the whole request
	Login        time.Duration // 5 s from the end of the handshake to the login frame
	Verify       time.Duration // 10 s for a token
	Attach       time.Duration // 20 s for the downlink
	Message      time.Duration // 30 s from the first byte of a message to its last
	Write        time.Duration // 20 s in which a reader that lags takes not one byte
	Close        time.Duration // 3 s for the peer's part of the close
	ExpiryNotice time.Duration // 60 s before a token expires the client is told
	Tick         time.Duration // 250 ms from one count of the gauges to the next; the loop's timers are finer
}

func (c *Config) setDefaults() {
	orInt(&c.Loops, runtime.GOMAXPROCS(0))
	orInt(&c.DrainRate, 500)
	orInt(&c.Verifiers, 4)
	l := &c.Limits
	orInt(&l.Connections, descriptorLimit())
	orInt(&l.Arriving, 8192)
	orInt(&l.Frame, protocol.MaxFrame)
	orInt(&l.LoginFrame, 16<<10)
	orInt(&l.Fragments, 1024)
	orInt(&l.Pending, 1<<20)
	if l.Buffered <= 0 {
		l.Buffered = 512 << 20
	}
	never := func() bool { return false }
	if c.ShortOfMemory == nil {
		c.ShortOfMemory = never
	}
	if c.LoginsLate == nil {
		c.LoginsLate = never
	}
	t := &c.Times
	orTime(&t.Heartbeat, 25*time.Second)
	orTime(&t.Handshake, 5*time.Second)
	orTime(&t.Login, 5*time.Second)
	orTime(&t.Verify, 10*time.Second)
	orTime(&t.Attach, 20*time.Second)
	orTime(&t.Message, 30*time.Second)
	orTime(&t.Write, 20*time.Second)
	orTime(&t.Close, 3*time.Second)
	orTime(&t.ExpiryNotice, time.Minute)
	orTime(&t.Tick, 250*time.Millisecond)
}

func orInt(v *int, d int) {
	if *v <= 0 {
		*v = d
	}
}

func orTime(v *time.Duration, d time.Duration) {
	if *v <= 0 {
		*v = d
	}
}

// descriptorLimit leaves descriptors for the loops, NATS, the admin port and logs.
func descriptorLimit() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 512
	}
	return max(int(min(r.Cur, 1<<30))-512, 64)
}
