package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
	"github.com/wirepost/wirepost/scripts/usage"
)

const pingEvery = 25 * time.Second

// idle measures connections that do nothing: how fast they come, what memory they take,
// and what their pings cost.
func idle(ctx context.Context, b *bench) error {
	sp := b.spans
	slope := b.table(figure.Table{Title: "Memory of an idle connection", Unit: "bytes", Floor: nameGobwas, Ours: nameEdge,
		Note: fmt.Sprintf("Slope of the server's resident memory from %d to %d connections, %v after the last one. Ours are authenticated users, each with its NATS subscription.", sp.idleFrom, sp.idleTo, sp.settle)})
	connect := b.table(figure.Table{Title: "Connecting", Unit: "connections/s", Floor: nameAccept, Ours: nameEdge,
		Note: "Server and generator share the machine. Ours ends with the login reply, centrifuge's with its connect reply, the others with the handshake."})
	cpu := b.table(figure.Table{Title: "CPU of a connect", Unit: "µs", Floor: nameAccept, Ours: nameEdge,
		Note: "Of the server's process; ours with the login, its nats-server apart."})
	pings := b.table(figure.Table{Title: "CPU of holding connections", Unit: "% of a core", Floor: nameGobwas, Ours: nameEdge,
		Note: fmt.Sprintf("%d connections, each pings every %v and is answered: WebSocket pings, heartbeats at our edge.", sp.idleTo, pingEvery)})
	return b.each(ctx, "idle", []subject{
		{name: nameAccept, kind: peer.TCP, mode: peer.Echo, dialect: gen.Plain},
		{name: nameGobwas, kind: peer.Gobwas, mode: peer.Echo, dialect: gen.Plain},
		{name: nameEdge, dialect: gen.Edge},
		{name: "lesismal/nbio", kind: peer.Nbio, mode: peer.Echo, dialect: gen.Plain},
		{name: "lxzan/gws", kind: peer.Gws, mode: peer.Echo, dialect: gen.Plain},
		{name: "gorilla/websocket", kind: peer.Gorilla, mode: peer.Echo, dialect: gen.Plain},
		{name: "centrifugal/centrifuge", kind: peer.Centrifuge, mode: peer.Echo, dialect: gen.Centrifuge},
	}, max(sp.idleTo, sp.accepts), func(s subject, t *target) error {
		if s.name == nameAccept {
			return accepted(t, sp.accepts, connect, cpu)
		}
		if _, err := t.load.Do(gen.Command{Do: gen.Open, N: sp.idleFrom}); err != nil {
			return err
		}
		few, err := t.rest(sp.settle)
		if err != nil {
			return err
		}
		r, used, _, err := t.metered(gen.Command{Do: gen.Open, N: sp.idleTo}, t.server)
		if err != nil {
			return err
		}
		connect.Add(s.name, perSecond(r.Count, r.Took))
		cpu.Add(s.name, micros(used[0], r.Count))
		many, err := t.rest(sp.settle)
		if err != nil {
			return err
		}
		slope.Add(s.name, float64(many-few)/float64(sp.idleTo-sp.idleFrom))
		_, used, span, err := t.metered(gen.Command{Do: gen.Hold, N: sp.idleTo, Every: pingEvery, For: sp.hold}, t.server)
		if err != nil {
			return err
		}
		pings.Add(s.name, 100*used[0].Seconds()/span.Seconds())
		return nil
	})
}

const nameAccept = "floor: connect + accept4"

// accepted is the floor of connecting: sockets without a byte on them.
func accepted(t *target, n int, connect, cpu *figure.Table) error {
	r, used, _, err := t.metered(gen.Command{Do: gen.Raw, N: n}, t.server)
	if err != nil {
		return err
	}
	connect.Add(nameAccept, perSecond(r.Count, r.Took))
	cpu.Add(nameAccept, micros(used[0], r.Count))
	return nil
}

// rest returns the server's resident memory after a time without anything: what is
// measured is rest, and no signal tells when a collector has given memory back.
func (t *target) rest(settle time.Duration) (int64, error) {
	time.Sleep(settle)
	return usage.RSS(t.server.PID)
}
