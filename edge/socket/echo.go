package socket

import (
	"log/slog"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"
)

// echo sends each message back: the WebSocket layer alone, for conformance tests
// (Autobahn) and for benchmarks beside other servers. No binary of the project runs it.
type echo struct {
	lim bounds
}

// NewEcho returns a Server that needs no login and sends each message back. Like New it
// must be told the path and the origins; Config.Edge may be empty.
func NewEcho(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg.setDefaults()
	return newServer(cfg, Deps{Log: log, Registry: reg}, func(*Server) layer {
		return &echo{lim: bounds{maxMessage: cfg.Limits.Frame, maxFragments: cfg.Limits.Fragments}}
	})
}

func (e *echo) opened(c *Conn, _ string)                { c.state = stOpen; c.arrived() }
func (e *echo) message(c *Conn, op ws.OpCode, b []byte) { c.send(op, b) }
func (e *echo) bounds(*Conn) bounds                     { return e.lim }
func (e *echo) check(*Conn, stamp)                      {}
func (e *echo) next(*Conn) (stamp, bool)                { return 0, false }
func (e *echo) drains(*Conn, int64)                     {}
func (e *echo) posted(*Conn, *message)                  {}
func (e *echo) ended(*Conn)                             {}
