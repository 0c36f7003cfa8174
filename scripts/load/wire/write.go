package wire

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// maxUnsent is what may wait for a server that does not read.
const maxUnsent = 1 << 20

// ErrFull is returned by Text and Binary when 1 MiB waits already.
var ErrFull = errors.New("the server does not read")

// Text sends a text message. b is copied. It never waits: what the kernel does not take
// goes out when it can.
func (n *Conn) Text(b []byte) error { return n.message(opText, b) }

// Binary is Text for a binary message.
func (n *Conn) Binary(b []byte) error { return n.message(opBinary, b) }

// Ping sends a ping of at most 125 bytes. The server's pong is not reported.
func (n *Conn) Ping(b []byte) error { return n.message(opPing, b[:min(len(b), maxControl)]) }

func (n *Conn) message(op byte, b []byte) error {
	switch {
	case n.state != open:
		return ErrNotOpen
	case len(n.out) > maxUnsent:
		return ErrFull
	}
	n.writeFrame(op, b)
	return nil
}

// Unsent returns how many bytes wait for the server to read.
func (n *Conn) Unsent() int { return len(n.out) }

// writeFrame sends one masked frame.
func (n *Conn) writeFrame(op byte, body []byte) {
	f := append(n.client.frame[:0], finBit|op)
	switch {
	case len(body) < 126:
		f = append(f, maskBit|byte(len(body)))
	case len(body) < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, maskBit|126), uint16(len(body)))
	default:
		f = binary.BigEndian.AppendUint64(append(f, maskBit|127), uint64(len(body)))
	}
	var mask [4]byte
	binary.LittleEndian.PutUint32(mask[:], rand.Uint32())
	f = append(f, mask[:]...)
	at := len(f)
	f = append(f, body...)
	ws.Cipher(f[at:], mask, 0)
	n.client.frame = f[:0]
	n.write(f)
}

// write sends b or keeps a copy. An error of the socket is left to the next read, which
// finds it too: so Closed is never called inside of a call of the Handler's.
func (n *Conn) write(b []byte) {
	if len(n.out) == 0 {
		w, err := unix.Write(int(n.fd), b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			w = 0
		case err != nil:
			return
		}
		if b = b[w:]; len(b) == 0 {
			return
		}
	}
	n.out = append(n.out, b...)
	if n.want&unix.EPOLLOUT == 0 {
		_ = n.watch(unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT) // fails only for a descriptor that is not watched
	}
}

// flush writes what waits.
func (n *Conn) flush() {
	w, err := unix.Write(int(n.fd), n.out)
	if err != nil {
		w = 0
		if err != unix.EAGAIN && err != unix.EINTR {
			w = len(n.out) // the next read finds the error
		}
	}
	n.out = n.out[:copy(n.out, n.out[w:])]
	if len(n.out) == 0 {
		n.out = nil
		_ = n.watch(unix.EPOLL_CTL_MOD, unix.EPOLLIN)
	}
}
