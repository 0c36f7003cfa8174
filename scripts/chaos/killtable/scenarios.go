package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/check"
	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/load"
	"github.com/wirepost/wirepost/scripts/chaos/trial"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// scenario is a trouble that a rule of the design is there for.
type scenario struct {
	name  string
	spec  fleet.Spec
	users load.Options
	// shows is which rules of the checker each mutant breaks in it; one of them is enough.
	shows map[string][]check.Rule
	play  func(context.Context, *trial.Trial) error
}

const ms = time.Millisecond

func small(edges, workers int) fleet.Spec {
	return fleet.Spec{Edges: edges, Workers: workers, NATS: 1, Store: fleet.Store{Kind: fleet.Mongo, Members: 1},
		EdgeEnv: []string{"HEARTBEAT=2s", "DRAIN_NOTICE=100ms"}}
}

// unbounded lets a client send as fast as it can.
func unbounded(s fleet.Spec) fleet.Spec {
	s.EdgeEnv = append(s.EdgeEnv, "FRAME_RATE=0", "BYTE_RATE=0")
	return s
}

// replicated: the primary stays one for longer than the worker tries an insert (5 s).
func replicated(s fleet.Spec) fleet.Spec {
	s.Store.Members, s.Store.Election = 3, 12*time.Second
	return s
}

func clustered(s fleet.Spec, edgeEnv ...string) fleet.Spec {
	s.NATS = 3
	s.EdgeEnv = append(s.EdgeEnv, edgeEnv...)
	return s
}

// scenarios by mutant.
var scenarios = func() map[string]*scenario {
	byMutant := map[string]*scenario{}
	for _, s := range []*scenario{everyday, primaryCutOff, shardRefuses, storedNotDelivered, laneFull, ownerDies, ownerWakes,
		lateReplica, edgeCutOff, deviceAway, deafDevice} {
		for m := range s.shows {
			byMutant[m] = s
		}
	}
	return byMutant
}()

// steps does one after the other until one fails.
func steps(all ...func() error) error {
	for _, step := range all {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func waits(ctx context.Context, d time.Duration) func() error {
	return func() error { return trial.Pause(ctx, d) }
}

// everyday: people talk, and some sends are repeated after they were acknowledged.
var everyday = &scenario{
	name:  "sends are repeated",
	spec:  small(1, 1),
	users: load.Options{Users: 6, Rate: 150, Again: 0.1},
	shows: map[string][]check.Rule{
		"no-unique-key": {check.Duplicated},
		"msg-id":        {check.Unresolved},
	},
	play: func(ctx context.Context, t *trial.Trial) error {
		t.L.Run()
		return trial.Pause(ctx, 4*time.Second)
	},
}

// primaryCutOff: the primary writes what nobody else has, and is killed. The others are cut
// off from it, not paused: what it sent would wait in their sockets.
var primaryCutOff = &scenario{
	name:  "store fails over",
	spec:  replicated(small(1, 1)),
	users: load.Options{Users: 4, Rate: 40},
	shows: map[string][]check.Rule{
		"ack-before-commit": {check.Lost},
		"local-last":        {check.Gap},
	},
	play: func(ctx context.Context, t *trial.Trial) error {
		t.L.Run()
		if err := trial.Pause(ctx, time.Second); err != nil {
			return err
		}
		primary, err := t.F.Primary(ctx)
		if err != nil {
			return err
		}
		var links []*fleet.Link
		for _, p := range t.F.Store() {
			if l := t.F.Link(primary, p); l != nil {
				links = append(links, l)
			}
		}
		each := func(do func(*fleet.Link)) func() error {
			return func() error {
				for _, l := range links {
					do(l)
				}
				return nil
			}
		}
		return steps(each((*fleet.Link).Cut), waits(ctx, 8*time.Second), // a failed insert, and another look
			func() error { primary.Kill(); return nil },
			func() error { _, err := t.F.Primary(ctx); return err }, // one that has not what the first one wrote
			each((*fleet.Link).Restore), waits(ctx, 2*time.Second), primary.Start,
			func() error { return t.F.AwaitStore(ctx) }, waits(ctx, 3*time.Second))
	},
}

// shardRefuses: the receiver's shard takes no message, for longer than a delivery is tried.
var shardRefuses = &scenario{
	name:  "a shard refuses",
	spec:  small(1, 1),
	users: load.Options{Users: 8},
	shows: map[string][]check.Rule{"uplink-ack-early": {check.Channel}},
	play: func(ctx context.Context, t *trial.Trial) error {
		from, to, err := apart(t.L.Users())
		if err != nil {
			return err
		}
		shard := shardOf(to)
		return steps(
			func() error { return t.L.Send(ctx, from, to, 1) },
			func() error { return t.L.AwaitOlder(ctx, time.Now()) },
			func() error { return limitMessages(ctx, t.F, shard, 1) },
			func() error { return t.L.Send(ctx, from, to, 1) },
			waits(ctx, 9*time.Second),
			func() error { return limitMessages(ctx, t.F, shard, -1) },
			waits(ctx, 3*time.Second))
	},
}

// apart returns two users whose downlink shards and lanes differ.
func apart(users []string) (from, to string, err error) {
	for _, a := range users {
		for _, b := range users {
			if shardOf(a) != shardOf(b) && laneOf(a) != laneOf(b) {
				return a, b, nil
			}
		}
	}
	return "", "", errNoChoice
}

func shardOf(user string) int { return subject.Shard(userid.MustParse(user), stream.DefaultShards) }

func laneOf(user string) int { return subject.Lane(userid.MustParse(user), stream.DefaultLanes) }

// limitMessages sets how large a message of a downlink shard may be, in bytes; -1: as it was.
func limitMessages(ctx context.Context, f *fleet.Fleet, shard int, size int32) error {
	_, js := f.NATS()
	names, err := f.StreamNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if d, err := stream.ParseDown(name); err != nil || d.Shard != shard {
			continue
		}
		s, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		cfg := s.CachedInfo().Config
		cfg.MaxMsgSize = size
		_, err = js.UpdateStream(ctx, cfg)
		return err
	}
	return errNoChoice
}

// storedNotDelivered: a worker has stored messages and cannot deliver them, new ones are
// behind them in the lane, and it dies: the next one finds both in one batch.
var storedNotDelivered = &scenario{
	name:  "a batch is half known",
	spec:  small(1, 1),
	users: load.Options{Users: 4},
	shows: map[string][]check.Rule{"unordered-batch": {check.Gap}},
	play: func(ctx context.Context, t *trial.Trial) error {
		from, to := t.L.Users()[0], t.L.Users()[1]
		worker := t.F.Workers()[0]
		limit := func(size int32) func() error {
			return func() error {
				for shard := range stream.DefaultShards {
					if err := limitMessages(ctx, t.F, shard, size); err != nil {
						return err
					}
				}
				return nil
			}
		}
		send := func(n int) func() error { return func() error { return t.L.Send(ctx, from, to, n) } }
		for range 3 {
			err := steps(limit(1), send(7), waits(ctx, time.Second), send(10), waits(ctx, time.Second),
				func() error { worker.Kill(); return nil }, limit(-1), worker.Start,
				func() error { return t.L.AwaitOlder(ctx, time.Now()) })
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// laneFull: no worker works, and the lanes hold less than is sent.
var laneFull = &scenario{
	name:  "lanes are full",
	spec:  small(1, 1),
	users: load.Options{Users: 4, Rate: 120},
	shows: map[string][]check.Rule{
		"discard-old": {check.SenderOrder},
		"pipelined":   {check.SenderOrder},
	},
	play: func(ctx context.Context, t *trial.Trial) error {
		worker := t.F.Workers()[0]
		t.L.Run()
		for range 2 {
			err := steps(waits(ctx, 500*ms), worker.Pause,
				func() error { return t.F.LimitLanes(ctx, 3<<10) }, waits(ctx, 4*time.Second),
				worker.Resume, func() error { return t.F.LimitLanes(ctx, 1<<27) },
				func() error { return t.L.AwaitOlder(ctx, time.Now()) })
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// ownerDies: the store stands still, so that every lane's owner has messages in flight, and
// the owner is killed while more is sent.
var ownerDies = &scenario{
	name:  "owners die",
	spec:  small(1, 2),
	users: load.Options{Users: 6, Rate: 150},
	shows: map[string][]check.Rule{"no-reset": {check.SenderOrder, check.RealTime}},
	play: func(ctx context.Context, t *trial.Trial) error {
		t.L.Run()
		store := t.F.Store()[0]
		for _, w := range t.F.Workers() {
			err := steps(waits(ctx, time.Second), store.Pause, waits(ctx, 500*ms),
				func() error { w.Kill(); return nil }, store.Resume, waits(ctx, time.Second), w.Start,
				func() error { return t.F.AwaitReady(ctx) },
				func() error { return t.L.AwaitOlder(ctx, time.Now()) })
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// ownerWakes: an owner sleeps while another takes over and falls asleep with messages in
// flight, and wakes up.
var ownerWakes = &scenario{
	name:  "an owner wakes up",
	spec:  small(1, 2),
	users: load.Options{Users: 6, Rate: 120},
	shows: map[string][]check.Rule{"woken-owner": {check.SenderOrder, check.RealTime}},
	play: func(ctx context.Context, t *trial.Trial) error {
		t.L.Run()
		store := t.F.Store()[0]
		first, second := t.F.Workers()[0], t.F.Workers()[1]
		for range 2 {
			err := steps(waits(ctx, time.Second),
				first.Pause, waits(ctx, 5*time.Second), // the second has all lanes
				store.Pause, waits(ctx, 500*ms), // and messages in flight
				second.Pause, store.Resume, first.Resume, waits(ctx, 6*time.Second), // the first has all lanes again
				second.Resume,
				func() error { return t.L.AwaitOlder(ctx, time.Now()) })
			if err != nil {
				return err
			}
			first, second = second, first
		}
		return nil
	},
}

// lateReplica: the receivers' edge knows one NATS server, which hears and tells everything
// late; each receiver logs in once, while the only message for it comes, so that nothing
// repairs what is missed. A login asks any replica: in one of three cases that of the late
// server. One login at a time in each shard: those of a crowd are answered together.
var lateReplica = &scenario{
	name: "logins at a late replica",
	spec: clustered(small(2, 1), "SWEEP_INTERVAL=10m"),
	users: load.Options{Users: 140, Place: func(i int, urls []string) []string {
		if i < lateSenders {
			return urls[1:]
		}
		return urls[:1]
	}},
	shows: map[string][]check.Rule{"no-marker": {check.Channel}},
	play: func(ctx context.Context, t *trial.Trial) error {
		nodes := t.F.Nodes()
		late, routes := nodes[2], []*fleet.Link{t.F.Link(nodes[2], nodes[0]), t.F.Link(nodes[2], nodes[1])}
		if err := lateServerOnly(ctx, t.F, t.F.Edges()[0], late); err != nil {
			return err
		}
		if err := trial.Pause(ctx, 5*time.Second); err != nil { // all clients are back
			return err
		}
		for _, l := range routes {
			l.Slow(120*ms, 0)
		}
		senders, receivers := t.L.Users()[:lateSenders], byShard(t.L.Users()[lateSenders:])
		for ; len(receivers) > 0; receivers = receivers[1:] {
			t.L.Cut(receivers[0]...)
			for i, to := range receivers[0] {
				err := steps(waits(ctx, 40*ms), func() error { return t.L.Send(ctx, senders[(len(receivers)+i)%lateSenders], to, 1) })
				if err != nil {
					return err
				}
			}
			if err := trial.Pause(ctx, 500*ms); err != nil {
				return err
			}
		}
		for _, l := range routes { // the cuts stay: an edge that connects anew looks for what it missed
			l.Restore()
		}
		return t.L.AwaitOlder(ctx, time.Now())
	},
}

const lateSenders = 20

// lateServerOnly lets one edge talk to the late server alone, and nobody else: what does
// not come from this edge is as quick as ever. Everybody begins anew, so that none of their
// connections is where it was.
func lateServerOnly(ctx context.Context, f *fleet.Fleet, edge, late *fleet.Process) error {
	if err := f.Relieve(ctx, late, f.Nodes()[0]); err != nil {
		return err
	}
	all := append(f.Edges(), f.Workers()...)
	for _, p := range all {
		for _, n := range f.Nodes() {
			if (p == edge) != (n == late) {
				f.Link(p, n).Cut()
			}
		}
	}
	fleet.KillAll(all)
	if err := fleet.StartAll(all); err != nil {
		return err
	}
	return f.AwaitReady(ctx)
}

// byShard returns the users in groups of which each has one user of a shard at most.
func byShard(users []string) (groups [][]string) {
	n := map[int]int{}
	for _, u := range users {
		i := n[shardOf(u)]
		n[shardOf(u)]++
		if i == len(groups) {
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], u)
	}
	return groups
}

// edgeCutOff: the receivers' edge loses NATS for a while, and nothing follows what came
// meanwhile.
var edgeCutOff = &scenario{
	name:  "an edge is cut off",
	spec:  small(2, 1),
	users: load.Options{Users: 12, Place: func(i int, urls []string) []string { return urls[i%2 : i%2+1] }},
	shows: map[string][]check.Rule{"no-sweep": {check.Channel}},
	play: func(ctx context.Context, t *trial.Trial) error {
		link := t.F.Link(t.F.Edges()[1], t.F.Nodes()[0])
		users := t.L.Users()
		link.Cut()
		for i := 0; i < len(users); i += 2 {
			if err := t.L.Send(ctx, users[i], users[i+1], 3); err != nil {
				return err
			}
		}
		return steps(waits(ctx, 2*time.Second), func() error { link.Restore(); return nil }, waits(ctx, 8*time.Second))
	},
}

// deviceAway: one message comes while a device is away.
var deviceAway = &scenario{
	name:  "a device is away",
	spec:  small(2, 1),
	users: load.Options{Users: 6},
	shows: map[string][]check.Rule{"resume-late": {check.Channel}},
	play: func(ctx context.Context, t *trial.Trial) error {
		users := t.L.Users()
		talk := func() error {
			for i := 0; i < len(users); i += 2 {
				if err := t.L.Send(ctx, users[i], users[i+1], 1); err != nil {
					return err
				}
			}
			return t.L.AwaitResolved(ctx)
		}
		var away []string
		for i := 1; i < len(users); i += 2 {
			away = append(away, users[i])
		}
		return steps(talk, waits(ctx, time.Second),
			func() error { t.L.Sleep(away...); return nil }, talk,
			func() error { return t.L.Wake(away...) }, waits(ctx, 3*time.Second))
	},
}

// deafDevice: a device does not read while more comes than an edge keeps for it.
var deafDevice = &scenario{
	name:  "a device does not read",
	spec:  unbounded(small(1, 1)),
	users: load.Options{Users: 4, Slow: 1},
	shows: map[string][]check.Rule{"drop-slow": {check.Channel, check.Hole}},
	play: func(ctx context.Context, t *trial.Trial) error {
		hear, err := t.L.Flood(ctx, rand.New(rand.NewPCG(1, 1)), 400, 60_000)
		if err != nil {
			return err
		}
		defer hear()
		return trial.Pause(ctx, 6*time.Second)
	},
}
