package differential

import (
	"errors"
	"io"
	"log"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/wirepost/wirepost/scripts/conformance"
)

// other is net/http with gorilla/websocket as an echo server. It ends with the process.
var other = sync.OnceValue(func() listener {
	l := make(listener)
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	srv := http.Server{
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m := memoryOf(r)
			m.request = r
			if c, err := up.Upgrade(w, r, nil); err == nil {
				m.release()
				echo(c)
			}
		}),
		ConnContext: withMemory,
	}
	srv.SetKeepAlivesEnabled(false) // a refusal ends the connection
	go func() { _ = srv.Serve(l) }()
	return l
})

// echo is what conformance.Echo does. The library leaves UTF-8 to its user.
func echo(c *websocket.Conn) {
	defer func() { _ = c.Close() }()
	c.SetReadLimit(conformance.LargestMessage)
	for {
		kind, msg, err := c.ReadMessage()
		if err != nil {
			return
		}
		if kind == websocket.TextMessage && !utf8.Valid(msg) {
			body := websocket.FormatCloseMessage(websocket.CloseInvalidFramePayloadData, "")
			_ = c.WriteControl(websocket.CloseMessage, body, time.Now().Add(time.Second))
			return
		}
		if c.WriteMessage(kind, msg) != nil {
			return
		}
	}
}

var errHangs = errors.New("net/http and gorilla do not end")

// answered plays a request and the frames behind it, and returns the connection with all
// that net/http and gorilla sent.
func answered(request string, frames []byte) (*memory, error) {
	m := newMemory(request, frames)
	other() <- m
	select {
	case <-m.done:
		return m, nil
	case <-time.After(10 * time.Second):
		return nil, errHangs
	}
}
