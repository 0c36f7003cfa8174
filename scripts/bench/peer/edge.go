package peer

import (
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/socket"
)

// serveEdgeEcho is the edge's own loop, handshake and socket rooms without what is above
// them.
func serveEdgeEcho(m Mode, addr string) error {
	if m != Echo {
		return fmt.Errorf("%s: %w", m, ErrUnknown)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := socket.NewEcho(socket.Config{Rules: handshake.Rules{Prefix: "/ws"}},
		slog.New(slog.NewTextHandler(os.Stderr, nil)), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return s.Serve(socket.Listener{Listener: ln})
}
