package loop

import "golang.org/x/sys/unix"

// accept takes a small batch of connections of listener number from. Several loops may
// wait for the same listener: who comes too late gets EAGAIN.
func (l *Loop[M]) accept(from int) {
	for range acceptBatch {
		if from >= len(l.listeners) || l.paused > 0 {
			return
		}
		// No address is asked for: PeerAddr gets it when it is needed.
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.listeners[from]), 0, 0,
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
			l.take(accepted{int32(fd), int32(from)})
		} else {
			to.adopt(accepted{int32(fd), int32(from)})
		}
	}
}

// accepted is a connection on its way to the loop that will own it.
type accepted struct {
	fd   int32
	from int32 // number of its listener
}

// take watches a connection, of which load knows already, and hands it to the handler.
func (l *Loop[M]) take(a accepted) {
	k, err := l.add(int(a.fd))
	if err != nil {
		_ = unix.Close(int(a.fd))
		l.load.Add(-1)
		if len(l.listeners) > 0 && l.paused == 0 {
			l.pauseAccept()
		}
		l.handler.AcceptFailed(err)
		return
	}
	l.handler.Accept(k, int(a.from))
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
func (l *Loop[M]) adopt(a accepted) {
	b := &l.mail
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = unix.Close(int(a.fd))
		return
	}
	l.load.Add(1)
	b.adopted = append(b.adopted, a)
	if b.sleeping.CompareAndSwap(true, false) {
		b.wake()
	}
}

// pauseAccept ends watching the listeners, which stay readable while descriptors are
// short and would keep the loop turning.
func (l *Loop[M]) pauseAccept() {
	l.paused = acceptPause
	for _, fd := range l.listeners {
		_ = unix.EpollCtl(l.table.epfd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// resumeAccept ends the pause.
func (l *Loop[M]) resumeAccept() {
	for i, fd := range l.listeners {
		_ = l.watch(fd, dataListen-int32(i))
	}
}

func (l *Loop[M]) shutListeners() {
	for _, fd := range l.listeners {
		// The open file lives on in other loops, so closing alone would not end the watch.
		_ = unix.EpollCtl(l.table.epfd, unix.EPOLL_CTL_DEL, fd, nil)
		_ = unix.Close(fd)
	}
	l.listeners = nil
}
