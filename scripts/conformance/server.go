package conformance

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/socket"
)

// Path is where the server's WebSocket is.
const Path = "/ws"

// Pieces says how many bytes the server's next read may bring; nil: what fits its buffer
// of 16 KiB. It is called by the server's one loop.
type Pieces func() int

// SingleBytes cuts the stream at every byte.
func SingleBytes() int { return 1 }

// RandomPieces cuts at random: half of the reads bring one to eight bytes, the others any
// size up to 16 KiB, small ones as often as large ones.
func RandomPieces(seed uint64) Pieces {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func() int {
		if rng.IntN(2) == 0 {
			return 1 + rng.IntN(8)
		}
		return 1 + rng.IntN(1<<(1+rng.IntN(14)))
	}
}

// Echo is a running server that sends every message back, made of the edge's loop,
// handshake and socket rooms.
type Echo struct {
	Addr string
	srv  *socket.Server
	done chan error
}

// StartEcho listens on addr ("127.0.0.1:0" takes a free port). Its limits are those of
// the cases; its times are too long to matter. Close must be called.
func StartEcho(addr string, pieces Pieces) (*Echo, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	cfg := socket.Config{
		Rules:  handshake.Rules{Prefix: Path},
		Loops:  1,
		Limits: socket.Limits{Frame: LargestMessage, Fragments: MostFragments},
		Times:  socket.Times{Heartbeat: time.Hour, Message: time.Hour},
	}
	srv, err := socket.NewEchoInPieces(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), pieces)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("make server: %w", err)
	}
	e := &Echo{Addr: ln.Addr().String(), srv: srv, done: make(chan error, 1)}
	go func() { e.done <- srv.Serve(socket.Listener{Listener: ln}) }()
	return e, nil
}

// Close cuts every connection and waits for the server's end.
func (e *Echo) Close() error {
	e.srv.Abort()
	if err := <-e.done; err != nil && !errors.Is(err, socket.ErrAborted) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
