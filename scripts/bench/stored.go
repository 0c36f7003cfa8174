package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/wirepost/wirepost/scripts/bench/figure"
	"github.com/wirepost/wirepost/scripts/bench/gen"
	"github.com/wirepost/wirepost/scripts/bench/proc"
	"github.com/wirepost/wirepost/scripts/bench/system"
)

const (
	chatConns = 1000
	chatWarm  = 2 * time.Second
)

// stored measures the whole way of a message: socket, JetStream, worker, mongod,
// JetStream, and the sockets of sender and recipient.
func stored(ctx context.Context, b *bench) error {
	s := &storing{
		rate: b.table(figure.Table{Title: "Stored messages, flat out", Unit: "messages/s",
			Note: fmt.Sprintf("%d users in pairs, %d bytes, one message under way on each connection; each is acknowledged to its sender and seen by its recipient. All processes and the generator share the machine.", chatConns, 128)}),
		cpu: b.table(figure.Table{Title: "CPU of a stored message, flat out", Unit: "µs", Whole: nameSum,
			Note: "By process; the generator is not in the sum."}),
		half:    b.table(figure.Table{Title: "Stored messages at half of that rate: latency to the acknowledgement", Unit: "ms", Note: "From the intended time of a message."}),
		halfCPU: b.table(figure.Table{Title: "CPU of a stored message at half of that rate", Unit: "µs", Whole: nameSum}),
	}
	for round := range b.spans.rounds {
		fmt.Fprintf(os.Stderr, "stored, round %d of %d\n", round+1, b.spans.rounds)
		if err := s.round(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

const nameSum = "edge + nats-server + worker + mongod"

type storing struct{ rate, cpu, half, halfCPU *figure.Table }

func (s *storing) round(ctx context.Context, b *bench) error {
	sys, err := system.Start(ctx, b.bin, true)
	if err != nil {
		return err
	}
	defer sys.Stop()
	t := &target{server: sys.Edge, system: sys}
	if t.load, err = gen.Start(b.self, gen.Options{URL: sys.URL, Dialect: gen.Edge, Conns: chatConns, Secret: sys.Secret}); err != nil {
		return err
	}
	defer t.load.Kill()
	if _, err := t.load.Do(gen.Command{Do: gen.Open, N: chatConns}); err != nil {
		return err
	}
	if _, err := t.load.Do(gen.Command{Do: gen.Chat, N: chatConns, For: chatWarm}); err != nil {
		return err
	}
	all := []*proc.Process{sys.Edge, sys.NATS, sys.Worker, sys.Mongod, t.load.Process}
	r, used, _, err := t.metered(gen.Command{Do: gen.Chat, N: chatConns, For: b.spans.chat}, all...)
	if err != nil {
		return err
	}
	reached := perSecond(r.Count, r.Took)
	s.rate.Add("acknowledged, and seen by the recipient", reached)
	byProcess(s.cpu, all, used, r.Count)
	r, used, _, err = t.metered(gen.Command{Do: gen.Chat, N: chatConns, For: b.spans.chat, Rate: reached / 2}, all...)
	if err != nil {
		return err
	}
	byProcess(s.halfCPU, all, used, r.Count)
	s.half.Add("p50", r.P50.Seconds()*1000)
	s.half.Add("p99", r.P99.Seconds()*1000)
	return nil
}

// byProcess adds the CPU time of a message for each process; the last one is the generator.
func byProcess(t *figure.Table, all []*proc.Process, used []time.Duration, n int) {
	var sum time.Duration
	for i, p := range all {
		t.Add(p.Name, micros(used[i], n))
		if i < len(all)-1 {
			sum += used[i]
		}
	}
	t.Add(nameSum, micros(sum, n))
}
