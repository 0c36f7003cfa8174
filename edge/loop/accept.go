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
		if to := l.lightest(); to == l {
			l.load.Add(1)
			l.take(int(fd))
		} else {
			to.adopt(int32(fd))
		}
	}
}

// take watches a connection, of which load knows already, and hands it to the handler.
func (l *Loop[M]) take(fd int) {
	k, err := l.add(fd)
	if err != nil {
		_ = unix.Close(fd)
		l.load.Add(-1)
		if l.lisfd >= 0 && l.paused == 0 {
			l.pauseAccept()
		}
		l.handler.AcceptFailed(err)
		return
	}
	l.handler.Accept(k)
}

// Share makes loops hand accepted connections to the one that has the fewest, before
// they run. Who wakes first accepts most, so without it the first loop gets two thirds
// of a quiet server's connections, for as long as those live.
func Share[M any](loops []*Loop[M]) {
	for _, l := range loops {
		l.peers = loops
	}
}

// shareSlack is how many connections a loop may have more than another before it hands
// one over, which costs that loop's waking.
const shareSlack = 8

func (l *Loop[M]) lightest() *Loop[M] {
	best, least := l, l.load.Load()-shareSlack
	for _, p := range l.peers {
		if n := p.load.Load(); n < least {
			best, least = p, n
		}
	}
	return best
}

// adopt gives a connection to this loop, from the goroutine of another.
func (l *Loop[M]) adopt(fd int32) {
	b := &l.mail
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = unix.Close(int(fd))
		return
	}
	l.load.Add(1)
	b.fds = append(b.fds, fd)
	if b.sleeping.CompareAndSwap(true, false) {
		b.wake()
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
