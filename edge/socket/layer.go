package socket

import (
	"time"

	"github.com/gobwas/ws"
)

// layer is what stands on the WebSocket protocol: the client protocol (gateway), or an
// echo. It has no state: that is in the Conn. All methods are called on the
// connection's loop; a layer may call send and close on c in each of them.
type layer interface {
	// opened follows the handshake; token is "" if it carried none. The layer sets the
	// state that waits for a login, or stOpen.
	opened(c *Conn, token string)
	// message takes a whole message. data is valid until it returns, and is its to change.
	message(c *Conn, op ws.OpCode, data []byte)
	// bounds says how large the next message may be.
	bounds(c *Conn) bounds
	// check is called from time to time while c is open; next says when at the latest.
	check(c *Conn, now stamp)
	next(c *Conn) (stamp, bool)
	// drains tells c, which is open, to leave within that time.
	drains(c *Conn, within time.Duration)
	// posted takes what a neighbour sent; c may be closed by now.
	posted(c *Conn, m *message)
	// ended is called once for each connection that was opened, when c.end is known.
	ended(c *Conn)
}
