package army

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// sources is over how many addresses of 127.1.0.0/16 connections are spread, so that no
// pair of addresses runs out of ports.
const sources = 250

// dial opens a TCP connection from one of the source addresses. Only the connect itself
// may wait.
func dial(to netip.AddrPort, i int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) },
		func() error {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		},
		func() error { return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 1, 0, byte(1 + i%sources)}})
		},
		func() error {
			return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		},
		func() error { return unix.SetNonblock(fd, true) },
	} {
		if err := set(); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// send writes without waiting. ok is false when the connection is over.
func send(fd int, b []byte) (n int, ok bool) {
	n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
	return max(n, 0), err == nil || err == unix.EAGAIN || err == unix.EINTR
}

// receive reads without waiting. ok is false when the connection is over.
func receive(fd int, b []byte) (n int, ok bool) {
	n, err := unix.Read(fd, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return 0, true
	}
	return max(n, 0), err == nil && n > 0
}

// over reports whether the peer has ended a connection that is not read.
func over(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents != 0
}
