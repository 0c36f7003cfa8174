package wire

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// dialer is the queue in front of connect. With a rate it is a schedule, not a bucket:
// each connection has a time at which it is due, and when the cap or a busy loop holds
// it up, Conn.Begun still tells that time, so that the wait is measured and not hidden.
type dialer struct {
	queue  []dialled
	head   int           // of queue: what is before it has begun
	every  time.Duration // between two; 0: no schedule
	due    time.Duration // of the next
	source uint32        // of the next source address
}

type dialled struct{ id, to uint32 }

func (d *dialer) init(rate float64, source uint32) {
	if rate > 0 {
		d.every = max(time.Duration(float64(time.Second)/rate), 1)
	}
	d.source = source
}

func (d *dialer) len() int { return len(d.queue) - d.head }

// Dial opens a connection to Options.Targets[to] when its turn comes. id is the caller's
// name for it; it need not be unique.
func (c *Client) Dial(to int, id uint32) {
	d := &c.dials
	if d.len() == 0 {
		d.queue, d.head = d.queue[:0], 0
		d.due = max(d.due, c.Now())
	}
	d.queue = append(d.queue, dialled{id, uint32(to)})
}

// nextDial is when a connection is due next, 0 when none waits for time alone.
func (c *Client) nextDial() time.Duration {
	if c.dials.len() == 0 || !c.mayDial() {
		return 0
	}
	return max(c.dials.due, 1)
}

func (c *Client) mayDial() bool { return c.counts.Opening < c.opt.InFlight && c.free != noSlot }

// dial begins the connections that are due. It reports whether it began any.
func (c *Client) dial() bool {
	d := &c.dials
	n := 0
	for ; n < dialBatch && d.len() > 0 && c.mayDial(); n++ {
		begun := c.Now()
		if d.every > 0 {
			if d.due > begun {
				break
			}
			begun, d.due = d.due, d.due+d.every
		}
		next := d.queue[d.head]
		d.head++
		c.begin(next, begun)
	}
	return n > 0
}

// begin takes a slot and connects.
func (c *Client) begin(d dialled, begun time.Duration) {
	n := &c.conns[c.free]
	c.free = n.next
	n.gen++
	n.id, n.to, n.begun = d.id, d.to, begun
	n.state, n.want, n.flags, n.link = connecting, 0, 0, link{noSlot, noSlot, 0}
	c.counts.Opening++
	n.setTimer(c.opt.OpenTimeout)
	done, err := n.connect(&c.opt.Targets[d.to])
	switch {
	case err != nil:
		n.end(End{Code: 1006, Err: err})
	case done:
		n.request()
	}
}

// connect reports whether the connection is there already, as it mostly is on loopback.
func (n *Conn) connect(t *Target) (done bool, err error) {
	fd, err := unix.Socket(t.family(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return false, fmt.Errorf("socket: %w", err)
	}
	n.fd = int32(fd)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if t.spread() {
		// The port is chosen at connect, where the pair of addresses is known.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		d := &n.client.dials
		d.source++
		if err := unix.Bind(fd, source(d.source%(254*256))); err != nil {
			return false, fmt.Errorf("bind: %w", err)
		}
	}
	switch err = unix.Connect(fd, t.sockaddr()); err {
	case nil:
		return true, n.watch(unix.EPOLL_CTL_ADD, unix.EPOLLIN)
	case unix.EINPROGRESS:
		return false, n.watch(unix.EPOLL_CTL_ADD, unix.EPOLLOUT)
	}
	return false, fmt.Errorf("connect: %w", err)
}

// connected is called when a socket that was connecting has become ready.
func (n *Conn) connected() {
	errno, err := unix.GetsockoptInt(int(n.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	if err == nil {
		err = n.watch(unix.EPOLL_CTL_MOD, unix.EPOLLIN)
	}
	if err != nil {
		n.end(End{Code: 1006, Err: fmt.Errorf("connect: %w", err)})
		return
	}
	n.request()
}
