package peer

import (
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

// serveNbio: its own epoll engine in the non-blocking mode, payloads given back after each
// message.
func serveNbio(m Mode, addr string) error {
	logging.SetLevel(logging.LevelError)
	var all registry[*websocket.Conn]
	up := websocket.NewUpgrader()
	up.OnMessage(func(c *websocket.Conn, op websocket.MessageType, b []byte) {
		if m == Echo {
			_ = c.WriteMessage(op, b)
			return
		}
		all.each(func(c *websocket.Conn) { _ = c.WriteMessage(op, b) })
	})
	if m == Fanout {
		up.OnOpen(all.add)
		up.OnClose(func(c *websocket.Conn, _ error) { all.remove(c) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		all.expect(m)
		_, _ = up.Upgrade(w, r, nil)
	})
	engine := nbhttp.NewEngine(nbhttp.Config{Network: "tcp", Addrs: []string{addr}, Handler: mux,
		IOMod: nbhttp.IOModNonBlocking, ReleaseWebsocketPayload: true})
	if err := engine.Start(); err != nil {
		return err
	}
	select {}
}
