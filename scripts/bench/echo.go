package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
)

const (
	echoConns = 1000
	echoRate  = 20_000 // messages/s: what every server here can do on half of a machine of two cores
)

// echo measures a message in and a message out: at a fixed rate, where all do the same
// work, and as fast as the server can.
func echo(ctx context.Context, b *bench) error {
	title := fmt.Sprintf("%d connections, %d bytes", echoConns, peer.MessageSize)
	cpu := b.table(figure.Table{Title: "Echo at " + figure.Number(echoRate) + "/s: CPU of the server", Unit: "µs a message", Floor: nameGobwas, Ours: nameRooms,
		Note: title + ". The edge's rooms are its loop, handshake and socket rooms; the edge itself answers heartbeats (13 bytes)."})
	p99 := b.table(figure.Table{Title: "Echo at " + figure.Number(echoRate) + "/s: p99", Unit: "µs", Floor: nameGobwas, Ours: nameRooms,
		Note: "From the intended time of a message to its answer."})
	flatCPU := b.table(figure.Table{Title: "Echo flat out: CPU of the server", Unit: "µs a message", Floor: nameGobwas, Ours: nameRooms,
		Note: title + ", one message under way on each."})
	rate := b.table(figure.Table{Title: "Echo flat out: rate", Unit: "messages/s", Floor: nameGobwas, Ours: nameRooms,
		Note: "Server and generator share the machine, and the generator has one thread: what a server needs less than a core for, this cannot tell apart."})
	return b.each(ctx, "echo", []subject{
		{name: nameTCP, kind: peer.TCP, mode: peer.Echo, dialect: gen.Plain},
		{name: nameGobwas, kind: peer.Gobwas, mode: peer.Echo, dialect: gen.Plain},
		{name: nameRooms, kind: peer.EdgeEcho, mode: peer.Echo, dialect: gen.Plain},
		{name: nameEdge + ", heartbeats", dialect: gen.Edge},
		{name: "lesismal/nbio", kind: peer.Nbio, mode: peer.Echo, dialect: gen.Plain},
		{name: "lxzan/gws", kind: peer.Gws, mode: peer.Echo, dialect: gen.Plain},
		{name: "gorilla/websocket", kind: peer.Gorilla, mode: peer.Echo, dialect: gen.Plain},
		{name: "centrifugal/centrifuge", kind: peer.Centrifuge, mode: peer.Echo, dialect: gen.Centrifuge},
	}, echoConns, func(s subject, t *target) error {
		if _, err := t.load.Do(gen.Command{Do: gen.Open, N: echoConns}); err != nil {
			return err
		}
		ask := func(rate float64, span time.Duration) (gen.Result, float64, error) {
			r, used, _, err := t.metered(gen.Command{Do: gen.Ask, N: echoConns, Rate: rate, For: span}, t.server)
			if err != nil {
				return r, 0, err
			}
			return r, micros(used[0], r.Count), nil
		}
		if _, _, err := ask(echoRate, b.spans.warm); err != nil {
			return err
		}
		r, each, err := ask(echoRate, b.spans.span)
		if err != nil {
			return err
		}
		cpu.Add(s.name, each)
		p99.Add(s.name, micros(r.P99, 1))
		if r, each, err = ask(0, b.spans.span); err != nil {
			return err
		}
		flatCPU.Add(s.name, each)
		rate.Add(s.name, perSecond(r.Count, r.Took))
		return nil
	})
}
