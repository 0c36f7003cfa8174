package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher is told which descriptor of a loop is ready. It is called on the loop's
// goroutine alone.
type watcher interface {
	accepted(fd int)
	readable(fd int)
}

// loop is the barest use of epoll: level-triggered, one listener and one goroutine each,
// the kernel spreads the connections. It polls while there is work and waits when there
// is none. What cannot wait is a raw system call, of which Go's scheduler hears nothing.
type loop struct {
	epfd, lisfd int
	w           watcher
}

// serveEpoll runs one loop for each processor until one of them fails.
func serveEpoll(addr string, newWatcher func() watcher) error {
	failed := make(chan error, 1)
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(addr, newWatcher())
		if err != nil {
			return err
		}
		go func() { failed <- l.run() }()
	}
	return <-failed
}

func newLoop(addr string, w watcher) (*loop, error) {
	lisfd, err := listen(addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	l := &loop{epfd: epfd, lisfd: lisfd, w: w}
	return l, l.watch(lisfd)
}

// listen returns a descriptor of addr, which several loops may listen at.
func listen(addr string) (int, error) {
	reuse := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := reuse.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return -1, err
	}
	defer func() { _ = ln.Close() }()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return -1, err
	}
	defer func() { _ = f.Close() }()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// What is accepted inherits it.
	return fd, errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

func (l *loop) watch(fd int) error {
	return unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (l *loop) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		r, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		n := int(r)
		if errno != 0 || n == 0 {
			var err error
			if n, err = unix.EpollWait(l.epfd, events, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("wait on epoll: %w", err)
			}
		}
		for i := range events[:max(n, 0)] {
			if fd := int(events[i].Fd); fd != l.lisfd {
				l.w.readable(fd)
			} else if err := l.accept(); err != nil {
				return err
			}
		}
	}
}

// accept takes what waits, at most 16 at once.
func (l *loop) accept() error {
	for range 16 {
		fd, _, err := unix.Accept4(l.lisfd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := l.watch(fd); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		l.w.accepted(fd)
	}
	return nil
}

// read reads once. more is false when the connection is over.
func read(fd int, b []byte) (n int, more bool) {
	r, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	switch errno {
	case 0:
		return int(r), r > 0
	case unix.EAGAIN, unix.EINTR: // epoll tells of it again
		return 0, true
	}
	return 0, false
}

// write writes once, and is content with what the kernel takes: a floor has no buffers.
func write(fd int, b []byte) {
	if len(b) > 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	}
}
