package peer

import (
	"net/http"

	"github.com/lxzan/gws"
)

// serveGws: the loop of a connection on a goroutine that the HTTP server's is not kept
// for, as its documentation advises, and a Broadcaster, which encodes once, for everybody.
func serveGws(m Mode, addr string) error {
	h := &gwsHandler{mode: m}
	up := gws.NewUpgrader(h, &gws.ServerOption{})
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		h.all.expect(m)
		c, err := up.Upgrade(w, r)
		if err != nil {
			return // it was answered
		}
		go c.ReadLoop()
	})
	return http.ListenAndServe(addr, nil)
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	mode Mode
	all  registry[*gws.Conn]
}

func (h *gwsHandler) OnOpen(c *gws.Conn) {
	if h.mode == Fanout {
		h.all.add(c)
	}
}

func (h *gwsHandler) OnClose(c *gws.Conn, _ error) { h.all.remove(c) }

func (h *gwsHandler) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (h *gwsHandler) OnMessage(c *gws.Conn, msg *gws.Message) {
	defer func() { _ = msg.Close() }()
	if h.mode == Echo {
		_ = c.WriteMessage(msg.Opcode, msg.Bytes())
		return
	}
	b := gws.NewBroadcaster(msg.Opcode, msg.Bytes())
	defer func() { _ = b.Close() }()
	h.all.each(func(c *gws.Conn) { _ = b.Broadcast(c) })
}
