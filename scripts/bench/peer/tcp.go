package peer

import (
	"bytes"
	"fmt"
	"io"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// serveTCP is the floor of any echo server: after the handshake, which lets the same load
// generator be used, it reads, and writes as many frames of MessageSize as it read,
// without looking at a byte. Connections that never send a byte are accepted and watched,
// nothing else: it is the floor of connecting, too.
func serveTCP(m Mode, addr string) error {
	if m != Echo {
		return fmt.Errorf("%s: %w", m, ErrUnknown)
	}
	return serveEpoll(addr, func() watcher {
		t := &tcp{buf: make([]byte, 16<<10)}
		frame := ws.MustCompileFrame(ws.NewTextFrame(bytes.Repeat([]byte{'x'}, MessageSize)))
		t.out = bytes.Repeat(frame, len(t.buf)/maskedSize)
		t.size = len(frame)
		return t
	})
}

// maskedSize is what a client sends for a message of MessageSize: a header of 2 bytes, a
// length of 2, a mask of 4, and the payload.
const maskedSize = MessageSize + 8

type tcp struct {
	open []bool // by descriptor: the handshake is over
	buf  []byte
	out  []byte // frames
	size int    // of one of them
}

func (t *tcp) accepted(fd int) { t.open = grown(t.open, fd) }

func (t *tcp) readable(fd int) {
	n, more := read(fd, t.buf)
	switch {
	case !more:
		t.open[fd] = false
		_ = unix.Close(fd)
	case n == 0:
	case !t.open[fd]: // on loopback a request comes in one piece
		t.open[fd] = true
		answerHandshake(fd, t.buf[:n])
	default:
		write(fd, t.out[:t.size*(n/maskedSize)])
	}
}

// grown returns s with room for index fd, which has its zero value.
func grown[T any](s []T, fd int) []T {
	var zero T
	for len(s) <= fd {
		s = append(s, zero)
	}
	s[fd] = zero
	return s
}

// answerHandshake upgrades the request in b, and closes fd if it is none.
func answerHandshake(fd int, b []byte) {
	var answer bytes.Buffer
	_, err := ws.Upgrader{}.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(b), &answer})
	if err == nil {
		_, err = unix.Write(fd, answer.Bytes())
	}
	if err != nil {
		_ = unix.Close(fd)
	}
}
