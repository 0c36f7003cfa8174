package socket

import (
	"log/slog"
	"time"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"
)

// echo sends each message back: the WebSocket layer alone, for conformance tests
// (Autobahn) and for benchmarks beside other servers. No binary of the project runs it.
type echo struct {
	lim   bounds
	piece func() int // the most bytes of the next read; nil: what fits the keeper's scratch
}

// NewEcho returns a Server that needs no login and sends each message back. Like New it
// must be told the path and the origins; Config.Edge may be empty.
func NewEcho(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	return NewEchoInPieces(cfg, log, reg, nil)
}

// NewEchoInPieces is NewEcho for tests that decide themselves where the bytes of a
// stream are cut, because a network does not keep to the cuts of the sender. piece says
// how many bytes the next read of a loop may bring; it is cut to 1 to 16 KiB, and asked
// by the loops' goroutines, at least once between two reads of frames. A request is read
// in pieces of what was asked last.
func NewEchoInPieces(cfg Config, log *slog.Logger, reg prometheus.Registerer, piece func() int) (*Server, error) {
	cfg.setDefaults()
	e := &echo{lim: bounds{maxMessage: cfg.Limits.Frame, maxFragments: cfg.Limits.Fragments}, piece: piece}
	s, err := newServer(cfg, Deps{Log: log, Registry: reg}, func(*Server) layer { return e })
	if err != nil {
		return nil, err
	}
	for _, k := range s.keepers {
		e.cut(k)
	}
	return s, nil
}

// cut bounds what the next read of k brings.
func (e *echo) cut(k *keeper) {
	if e.piece != nil {
		k.scratch = k.scratch[:min(max(e.piece(), 1), scratchSize)]
	}
}

// bounds is what the parser asks for before each step.
func (e *echo) bounds(c *Conn) bounds {
	e.cut(c.k)
	return e.lim
}

func (e *echo) opened(c *Conn, _ string)                { c.state = stOpen; c.arrived() }
func (e *echo) message(c *Conn, op ws.OpCode, b []byte) { c.send(op, b) }
func (e *echo) check(*Conn, stamp)                      {}
func (e *echo) next(*Conn) (stamp, bool)                { return 0, false }
func (e *echo) drains(*Conn, time.Duration)             {}
func (e *echo) posted(*Conn, *message)                  {}
func (e *echo) ended(*Conn)                             {}
