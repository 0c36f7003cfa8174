package loop

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poll takes what is ready and never waits. It is a raw system call: with timeout 0
// the kernel returns at once, so the scheduler need not be told.
func (l *Loop[M]) poll() error {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.table.epfd),
			uintptr(unsafe.Pointer(unsafe.SliceData(l.events))), uintptr(len(l.events)), 0, 0, 0)
		switch errno {
		case 0:
			l.ready = int(n)
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("poll: %w", errno)
	}
}

// pollParked is poll in the shape of syscall.RawConn.Read: false means that nothing is
// ready and the goroutine is to park until the epoll descriptor is.
func (l *Loop[M]) pollParked(uintptr) (done bool) {
	return l.poll() != nil || l.ready > 0
}
