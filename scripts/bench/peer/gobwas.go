package peer

import (
	"bytes"
	"io"
	"sync"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// serveGobwas is the floor of a WebSocket server: a raw epoll and the codec of gobwas/ws,
// one read buffer for each loop, one write for what one read brought. Frames of up to
// 16 KiB that arrive in one piece, no fragments; what breaks that is closed. In Fanout mode
// one thread compiles the frame once and writes it to every socket: the bare write loop.
func serveGobwas(m Mode, addr string) error {
	everybody := &sockets{fds: map[int]struct{}{}}
	return serveEpoll(addr, func() watcher {
		return &gobwas{mode: m, all: everybody, in: make([]byte, 16<<10)}
	})
}

// sockets are all connections of the server, for Fanout.
type sockets struct {
	mu  sync.Mutex
	fds map[int]struct{}
}

type gobwas struct {
	mode Mode
	all  *sockets
	open []bool // by descriptor: the handshake is over
	in   []byte
	r    bytes.Reader // over what is in in
	out  bytes.Buffer
	head [ws.MaxHeaderSize]byte
}

func (g *gobwas) accepted(fd int) { g.open = grown(g.open, fd) }

func (g *gobwas) readable(fd int) {
	n, more := read(fd, g.in)
	switch {
	case !more:
		g.close(fd)
	case n == 0:
	case !g.open[fd]:
		g.open[fd] = true
		answerHandshake(fd, g.in[:n])
		if g.mode == Fanout {
			g.all.mu.Lock()
			g.all.fds[fd] = struct{}{}
			g.all.mu.Unlock()
		}
	case !g.frames(fd, g.in[:n]):
		g.close(fd)
	}
}

func (g *gobwas) close(fd int) {
	if g.mode == Fanout {
		g.all.mu.Lock()
		delete(g.all.fds, fd)
		g.all.mu.Unlock()
	}
	g.open[fd] = false
	_ = unix.Close(fd)
}

// frames answers each frame in b, and writes once.
func (g *gobwas) frames(fd int, b []byte) bool {
	g.out.Reset()
	r := &g.r
	for r.Reset(b); r.Len() > 0; {
		h, err := ws.ReadHeaderBuffer(r, g.head[:])
		if err != nil || h.Length > int64(r.Len()) || !h.Fin {
			return false
		}
		at := len(b) - r.Len()
		payload := b[at : at+int(h.Length)]
		_, _ = r.Seek(h.Length, io.SeekCurrent)
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		switch h.OpCode {
		case ws.OpText, ws.OpBinary:
			if g.mode == Fanout {
				g.all.write(ws.MustCompileFrame(ws.NewFrame(h.OpCode, true, payload)))
				continue
			}
			g.answer(h.OpCode, payload)
		case ws.OpPing:
			g.answer(ws.OpPong, payload)
		case ws.OpClose:
			return false
		}
	}
	write(fd, g.out.Bytes())
	return true
}

func (g *gobwas) answer(op ws.OpCode, payload []byte) {
	_ = ws.WriteHeaderBuffer(&g.out, ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}, g.head[:]) // a buffer takes everything
	g.out.Write(payload)
}

func (s *sockets) write(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for fd := range s.fds {
		write(fd, frame)
	}
}
