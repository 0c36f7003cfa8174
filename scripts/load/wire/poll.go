package wire

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
