package socket_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/edge/socket"
)

// connectSmall is connect with a socket that takes few bytes, so that what the server
// writes waits at the server.
func (r *rig) connectSmall() *peer {
	r.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) }); ctl != nil {
			return ctl
		}
		return err
	}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{c.(*net.TCPConn), r.t, c}
}

// A peer that sends anything behind its close frame, which a pong can be, still gets all
// that was written to it before: Autobahn 7.1.2 to 7.1.6. Each read brings one byte, so
// the ping is not read yet when the close frame is answered.
func TestNothingIsLostBehindAClose(t *testing.T) {
	r := serveEchoInPieces(t, func() int { return 1 })
	p := r.connectSmall()
	p.upgrade("/ws")
	big := strings.Repeat("x", 60<<10)
	p.raw(append(frame(ws.OpText, true, big), append(frame(ws.OpClose, true, "\x03\xe8"), frame(ws.OpPing, true, "late")...)...))
	eventually(t, "the close frame is answered", func() bool { return r.metric("frames_out_total") == 2 })
	p.expectText(big)
	p.expectReply(1000)
	_ = p.Close()
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
}

// A peer that keeps TCP open behind the close is cut after Times.Close.
func TestCloseOfAPeerThatStaysIsBounded(t *testing.T) {
	r := serve(t, func(c *socket.Config, _ *rig) { c.Times.Close = 50 * time.Millisecond })
	p := r.login("u1")
	p.raw(frame(ws.OpClose, true, "\x03\xe8"))
	p.expectReply(1000)
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
}
