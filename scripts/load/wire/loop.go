package wire

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const events = 256 // ready descriptors that one poll takes

// What stands in epoll_event.data where a connection has its slot.
const (
	dataWake  = int32(-1)
	dataTimer = int32(-2)
)

// poller is the Client's epoll. Its goroutine parks in Go's own poller on the epoll
// descriptor, so that an idle Client holds no thread.
type poller struct {
	epfd, timerfd int
	file          *os.File // of epfd
	events        [events]unix.EpollEvent
	ready         int
}

func (c *Client) open() error {
	p := &c.poller
	p.epfd, p.timerfd, c.posted.wakefd = -1, -1, -1
	var err error
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	if err := unix.SetNonblock(p.epfd, true); err != nil {
		return fmt.Errorf("set epoll non-blocking: %w", err)
	}
	p.file = os.NewFile(uintptr(p.epfd), "epoll")
	if c.posted.wakefd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("create eventfd: %w", err)
	}
	if p.timerfd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("create timerfd: %w", err)
	}
	for fd, data := range map[int]int32{c.posted.wakefd: dataWake, p.timerfd: dataTimer} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: data}
		if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return fmt.Errorf("watch descriptor: %w", err)
		}
	}
	return nil
}

// poll takes what is ready and never waits. It is a raw system call: with timeout 0 the
// kernel returns at once, so the scheduler need not be told.
func (c *Client) poll() error {
	p := &c.poller
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd),
			uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
		switch errno {
		case 0:
			p.ready = int(n)
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("poll: %w", errno)
	}
}

// Run works until Stop. It must be called once, on a goroutine of its own.
func (c *Client) Run() error {
	defer c.release()
	if c.posted.stop.Load() {
		return ErrStopped
	}
	raw, err := c.poller.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("park on epoll: %w", err)
	}
	parked := func(uintptr) bool { return c.poll() != nil || c.poller.ready > 0 }
	for !c.posted.stop.Load() {
		if err := c.poll(); err != nil {
			return err
		}
		if c.turn() {
			runtime.Gosched()
			continue
		}
		c.setTimer()
		if err := raw.Read(parked); err != nil {
			return fmt.Errorf("wait on epoll: %w", err)
		}
		c.turn()
	}
	return nil
}

// turn works through what the last poll found and what is due. It reports whether there
// was anything.
func (c *Client) turn() (busy bool) {
	c.clock.now = c.Now()
	busy = c.poller.ready > 0
	for i := range c.poller.events[:c.poller.ready] {
		c.dispatch(&c.poller.events[i])
	}
	c.poller.ready = 0
	c.wheel.advance(ticks(c.clock.now))
	if w := c.clock.wake; w != 0 && w <= c.Now() {
		c.clock.wake = 0
		c.handler.Woken()
		busy = true
	}
	return c.dial() || busy
}

func (c *Client) dispatch(ev *unix.EpollEvent) {
	switch ev.Fd {
	case dataWake:
		var b [8]byte
		_, _ = unix.Read(c.posted.wakefd, b[:])
		c.posted.mu.Lock()
		q := c.posted.queue
		c.posted.queue = nil
		c.posted.mu.Unlock()
		for _, f := range q {
			f()
		}
	case dataTimer:
		var b [8]byte
		_, _ = unix.Read(c.poller.timerfd, b[:])
		c.clock.armed = 0
	default:
		// An earlier event of this turn may have closed the connection, and its slot
		// may hold another one by now.
		if n := &c.conns[ev.Fd]; n.fd >= 0 && n.gen == uint32(ev.Pad) {
			n.event(ev.Events)
		}
	}
}

// setTimer sets the timerfd to what is due next.
func (c *Client) setTimer() {
	next := c.clock.wake
	for _, at := range [2]time.Duration{c.wheel.next(), c.nextDial()} {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	if next == c.clock.armed {
		return
	}
	c.clock.armed = next
	var spec unix.ItimerSpec // zero: none
	if next != 0 {
		spec.Value = unix.NsecToTimespec(max(next-c.Now(), 1).Nanoseconds())
	}
	_ = unix.TimerfdSettime(c.poller.timerfd, 0, &spec, nil) // fails only for wrong arguments
}

// release closes everything that is open.
func (c *Client) release() {
	c.posted.mu.Lock()
	c.posted.closed, c.posted.queue = true, nil
	if c.posted.wakefd >= 0 {
		_ = unix.Close(c.posted.wakefd)
	}
	c.posted.mu.Unlock()
	for i := range c.conns {
		if fd := c.conns[i].fd; fd >= 0 {
			_ = unix.Close(int(fd))
			c.conns[i].fd = -1
		}
	}
	if c.poller.timerfd >= 0 {
		_ = unix.Close(c.poller.timerfd)
	}
	if c.poller.file != nil {
		_ = c.poller.file.Close()
	}
}
