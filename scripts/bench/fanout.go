package main

import (
	"context"
	"fmt"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/peer"
	"github.com/wirepost/wirepost/scripts/bench/proc"
)

const (
	fanConns = 2048
	fanRate  = 5 // times a second: some 10,000 deliveries/s
	devices  = 32
)

// fanout measures one message that goes to many sockets.
func fanout(ctx context.Context, b *bench) error {
	cpu := b.table(figure.Table{Title: "Fan-out", Unit: "µs of CPU a delivery", Floor: nameWrites, Ours: nameDevices,
		Note: fmt.Sprintf("%d bytes to %d sockets, %d times a second, CPU of the server's process. "+
			"Ours comes through JetStream, is checked for gaps and gets a resume token; a user there has %d devices, or one.", peer.MessageSize, fanConns, fanRate, devices)})
	return b.each(ctx, "fanout", []subject{
		{name: nameWrites, kind: peer.Gobwas, mode: peer.Fanout, dialect: gen.Plain},
		{name: nameDevices, dialect: gen.Edge, devices: devices},
		{name: nameEdge + ", one device a user", dialect: gen.Edge},
		{name: "lesismal/nbio", kind: peer.Nbio, mode: peer.Fanout, dialect: gen.Plain},
		{name: "lxzan/gws", kind: peer.Gws, mode: peer.Fanout, dialect: gen.Plain},
		{name: "gorilla/websocket", kind: peer.Gorilla, mode: peer.Fanout, dialect: gen.Plain},
		{name: "centrifugal/centrifuge", kind: peer.Centrifuge, mode: peer.Fanout, dialect: gen.Centrifuge},
	}, fanConns, func(s subject, t *target) error {
		if _, err := t.load.Do(gen.Command{Do: gen.Open, N: fanConns}); err != nil {
			return err
		}
		fan := gen.Command{Do: gen.Fan, N: fanConns, Rate: fanRate, For: b.spans.warm}
		if _, err := t.load.Do(fan); err != nil {
			return err
		}
		fan.For = b.spans.span
		all := []*proc.Process{t.server}
		if t.system != nil {
			all = append(all, t.system.NATS)
		}
		r, used, _, err := t.metered(fan, all...)
		if err != nil {
			return err
		}
		cpu.Add(s.name, micros(used[0], r.Count))
		if len(used) > 1 {
			cpu.Add(s.name+": its nats-server", micros(used[1], r.Count))
		}
		return nil
	})
}

const (
	nameWrites  = "floor: a loop of write"
	nameDevices = nameEdge + ", 32 devices a user"
)
