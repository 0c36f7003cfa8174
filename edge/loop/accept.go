package loop

import "golang.org/x/sys/unix"

// accept takes a small batch of connections. Several loops may wait for the same
// listener: who comes too late gets EAGAIN.
func (l *Loop[M]) accept() {
	for range acceptBatch {
		if l.lisfd < 0 || l.paused > 0 {
			return
		}
		// No address is asked for: PeerAddr gets it when it is needed.
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.lisfd), 0, 0,
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN,
			unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
			// accept(2): errors of that connection alone, which is gone; take the next.
			continue
		default: // EMFILE, ENFILE, ENOBUFS, ENOMEM
			l.pauseAccept()
			l.handler.AcceptFailed(errno)
			return
		}
		k, err := l.add(int(fd))
		if err != nil {
			_ = unix.Close(int(fd))
			l.pauseAccept()
			l.handler.AcceptFailed(err)
			return
		}
		l.handler.Accept(k)
	}
}

// pauseAccept ends watching the listener, which stays readable while descriptors are
// short and would keep the loop turning.
func (l *Loop[M]) pauseAccept() {
	l.paused = acceptPause
	_ = unix.EpollCtl(l.table.epfd, unix.EPOLL_CTL_DEL, l.lisfd, nil)
}

func (l *Loop[M]) shutListener() {
	if l.lisfd < 0 {
		return
	}
	// The open file lives on in other loops, so closing alone would not end the watch.
	_ = unix.EpollCtl(l.table.epfd, unix.EPOLL_CTL_DEL, l.lisfd, nil)
	_ = unix.Close(l.lisfd)
	l.lisfd = -1
}
