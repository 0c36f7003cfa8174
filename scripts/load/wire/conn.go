package wire

import (
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

const (
	unused      uint8 = iota
	connecting        // until the socket is writable
	handshaking       // until the answer is whole
	open
	closing // a close frame was sent; until the server closes the connection
)

const (
	fragmentText uint8 = 1 << iota // the message that is being put together is text
	fragments                      // there is such a message
)

// Conn is one connection. It belongs to its Client's goroutine, from Dial to Closed;
// after that the same Conn may be another connection.
type Conn struct {
	client *Client
	in     []byte        // what is there of an unfinished frame or answer; nil at rest
	out    []byte        // what the kernel did not take; nil at rest
	whole  []byte        // the fragments of an unfinished message; nil at rest
	bye    *End          // why it is being closed; nil at rest
	begun  time.Duration // when it was due to connect
	nonce  uint64
	link
	fd, slot           int32 // fd -1: unused
	gen                uint32
	id, to             uint32
	state, want, flags uint8
}

// ErrNotOpen is returned by Text and Binary when the connection is not open.
var ErrNotOpen = errors.New("connection is not open")

// ID returns the name that was given to Dial.
func (n *Conn) ID() uint32 { return n.id }

// Target returns the index of the connection's target.
func (n *Conn) Target() int { return int(n.to) }

// Begun returns the time of Client.Now at which the connection was due: with a rate by
// its schedule, else when connect was called.
func (n *Conn) Begun() time.Duration { return n.begun }

// Client returns what the connection belongs to.
func (n *Conn) Client() *Client { return n.client }

// Arm sets the one timer of an open connection: Handler.Timer is called when at least d
// has passed, and at most 400 ms later. An earlier setting is forgotten.
func (n *Conn) Arm(d time.Duration) {
	if n.state == open {
		n.setTimer(d)
	}
}

// Disarm takes the timer away.
func (n *Conn) Disarm() {
	if n.state == open {
		n.client.wheel.remove(n.slot)
	}
}

// IsOpen reports whether messages are taken: after the handshake, and before either side
// has begun to close.
func (n *Conn) IsOpen() bool { return n.state == open }

func (n *Conn) setTimer(d time.Duration) {
	w := &n.client.wheel
	w.remove(n.slot)
	w.insert(n.slot, ticks(n.client.Now()+max(d, 0))+1)
}

func (n *Conn) timeout() {
	switch {
	case n.state == open:
		n.client.handler.Timer(n)
	case n.state == closing:
		n.end(*n.bye)
	default:
		n.end(End{Code: 1006, Err: errTimeout})
	}
}

// Close begins the closing handshake with a code, 0 for none. Handler.Closed follows
// when the server has answered or 3 s have passed. It does nothing unless the connection
// is open.
func (n *Conn) Close(code int) {
	if n.state == open {
		n.leave(code, &End{Code: 1006, Local: true})
	}
}

// leave sends a close frame and waits for the server's end of the connection.
func (n *Conn) leave(code int, bye *End) {
	var b []byte
	if code != 0 && code != 1005 {
		b = []byte{byte(code >> 8), byte(code)}
	}
	n.writeFrame(opClose, b)
	n.state, n.bye = closing, bye
	n.whole = nil
	n.setTimer(closeTimeout)
}

// Abort closes the connection at once, with a reset, so that neither side keeps its
// addresses. Handler.Closed is not called.
func (n *Conn) Abort() {
	if n.state == unused {
		return
	}
	if n.fd >= 0 {
		_ = unix.SetsockoptLinger(int(n.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	n.shut()
	n.giveBack()
}

// end closes the connection and tells the Handler.
func (n *Conn) end(e End) {
	e.Opened = n.state >= open
	n.shut()
	n.client.handler.Closed(n, e)
	n.giveBack()
}

// shut closes the socket; the slot is still taken, so that Closed may look at n.
func (n *Conn) shut() {
	if n.state < open {
		n.client.counts.Opening--
	} else {
		n.client.counts.Open--
	}
	n.client.wheel.remove(n.slot)
	if n.fd >= 0 {
		_ = unix.Close(int(n.fd)) // ends the watch too
	}
	n.fd, n.state = -1, unused
	n.in, n.out, n.whole, n.bye = nil, nil, nil, nil
}

func (n *Conn) giveBack() {
	n.next, n.client.free = n.client.free, n.slot
}

func (n *Conn) watch(op int, want uint8) error {
	n.want = want
	ev := unix.EpollEvent{Events: uint32(want), Fd: n.slot, Pad: int32(n.gen)}
	return unix.EpollCtl(n.client.poller.epfd, op, int(n.fd), &ev)
}

func (n *Conn) event(events uint32) {
	if n.state == connecting {
		n.connected()
		return
	}
	gen := n.gen
	if events&unix.EPOLLOUT != 0 {
		n.flush()
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 && n.gen == gen && n.fd >= 0 {
		n.readable()
	}
}

// readable reads once; epoll tells when there is more.
func (n *Conn) readable() {
	c := n.client
	r, err := unix.Read(int(n.fd), c.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err == nil && r == 0:
		err = io.EOF
	}
	if err != nil {
		n.lost(err)
		return
	}
	n.received(c.buf[:r])
}

// received takes bytes of the server, cut anywhere.
func (n *Conn) received(b []byte) {
	if n.in != nil {
		n.in = append(n.in, b...)
		b = n.in
	}
	gen := n.gen
	rest := n.parse(b)
	if n.gen != gen || n.fd < 0 {
		return // it has ended
	}
	switch {
	case len(rest) == 0:
		n.in = nil
	case n.in == nil:
		n.in = append([]byte(nil), rest...)
	default:
		n.in = n.in[:copy(n.in, rest)]
	}
}

// parse works through what was read and returns what is not whole yet.
func (n *Conn) parse(b []byte) []byte {
	if n.state == handshaking {
		gen := n.gen
		rest, whole := n.response(b)
		if !whole || n.gen != gen || n.fd < 0 {
			return rest
		}
		b = rest
	}
	return n.frames(b)
}

// lost is called when nothing more comes.
func (n *Conn) lost(err error) {
	if n.state == closing {
		n.end(*n.bye)
		return
	}
	n.end(End{Code: 1006, Err: err})
}
