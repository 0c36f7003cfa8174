package loop

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// grain is the timer wheel's. Timers that are due in one grain fire together: with a grain
// of a whole Tick, connections that may go on after they sent too much would come at once,
// each with a quarter of a second of what it sends.
const grain = 20 * time.Millisecond

// clock is a loop's time, and what wakes it: for each Tick, and while it is hurried for each
// grain. Owned by the loop's goroutine.
type clock struct {
	fd    int // a timerfd; -1: none
	start time.Time
	now   time.Duration // since start, as of the turn

	tick   time.Duration
	tickAt time.Duration // when the next Tick is due
	grain  time.Duration // of the wheel

	hurried bool
	hurryTo time.Duration // until then there are timers that are exact to a grain
}

func newClock(tick time.Duration) clock {
	return clock{fd: -1, start: time.Now(), tick: tick, tickAt: tick, grain: min(grain, tick)}
}

func (c *clock) open() (err error) {
	if c.fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("create timerfd: %w", err)
	}
	return c.wakeEvery(c.tick)
}

func (c *clock) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}

func (c *clock) wakeEvery(d time.Duration) error {
	every := unix.NsecToTimespec(d.Nanoseconds())
	if err := unix.TimerfdSettime(c.fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("set timerfd: %w", err)
	}
	return nil
}

func (c *clock) read() { c.now = time.Since(c.start) }

func (c *clock) grains(d time.Duration) uint32 { return uint32(d / c.grain) }

// hurry lets the loop wake up for each grain until due. A loop whose connections are only
// silent wakes up for each Tick: heartbeats need no more, and there are many of them.
func (c *clock) hurry(due time.Duration) {
	c.hurryTo = max(c.hurryTo, due+2*c.grain)
	if !c.hurried {
		c.hurried = c.wakeEvery(c.grain) == nil // it cannot fail: the descriptor is ours and the time is right
	}
}

// ticks is called when the timer went off. It ends the hurry, and reports whether a Tick is due.
func (c *clock) ticks() bool {
	if c.hurried && c.now > c.hurryTo {
		c.hurried = c.wakeEvery(c.tick) != nil
	}
	if c.now < c.tickAt-c.grain { // the timer does not keep step with tickAt to the millisecond
		return false
	}
	c.tickAt += (c.now-c.tickAt)/c.tick*c.tick + c.tick // those that were missed are left out
	return true
}
