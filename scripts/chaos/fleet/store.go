package fleet

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	replicaSet = "rs0"
	// Of the replica set, in milliseconds. The election timeout is what wirepost advises;
	// MongoDB's default of 10,000 makes a failover last longer than wirepost may be away.
	electionTimeout = 4000
	heartbeat       = 1000
	// oneElectionTimeout is that of a set of one, which has nobody to wait for.
	oneElectionTimeout = 500

	memberHeartbeat = 500 * time.Millisecond // of the fleet's own clients
)

// composeStore makes the processes of the store.
func (f *Fleet) composeStore() error {
	for i := range f.spec.Store.Members {
		p := f.newProcess(f.spec.Store.Kind, i)
		if err := addrs(&p.Addr); err != nil {
			return err
		}
		if p.Kind == Ferret {
			p.command.bin = f.spec.Bin.Ferret
			p.command.args = []string{"-addr", p.Addr, "-dir", f.folder(p)}
		} else if err := f.composeMongod(p); err != nil {
			return err
		}
		client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + p.Addr + "/?directConnection=true").
			SetHeartbeatInterval(memberHeartbeat).SetServerSelectionTimeout(probeTimeout).SetConnectTimeout(probeTimeout))
		if err != nil {
			return err
		}
		f.members = append(f.members, client)
		p.probe = func(ctx context.Context) error { return serves(ctx, client) }
		f.store = append(f.store, p)
	}
	for i, a := range f.store {
		for j := range f.store[:i] {
			l := &Link{A: a, B: f.store[j]}
			if err := f.connect(l, f.store[j].Addr, a.Addr); err != nil {
				return err
			}
			f.fronts[j].let(a, l.ways[0])
			f.fronts[i].let(f.store[j], l.ways[1])
		}
	}
	return nil
}

func (f *Fleet) composeMongod(p *Process) error {
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	p.command.bin = f.spec.Bin.Mongod
	p.command.args = []string{
		"--replSet", replicaSet, "--bind_ip", "127.0.0.1", "--port", port,
		"--dbpath", f.folder(p), "--nounixsocket",
		"--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.25",
		"--setParameter", "diagnosticDataCollectionEnabled=false",
	}
	fr, err := newFront(p)
	if err != nil {
		return err
	}
	f.fronts = append(f.fronts, fr)
	return makeFolder(f.folder(p))
}

// storeFor makes the proxies between a worker and the store and returns the store's
// address as the worker sees it.
func (f *Fleet) storeFor(w *Process) (uri string, err error) {
	for i, p := range f.store {
		l := &Link{A: w, B: p}
		if err := f.connect(l, p.Addr); err != nil {
			return "", err
		}
		if p.Kind == Ferret {
			return "mongodb://" + l.ways[0].addr() + "/", nil
		}
		f.fronts[i].let(w, l.ways[0])
	}
	return f.StoreURI(), nil
}

// StoreURI is the address of the store for programs in this process. What they send goes
// past the proxies.
func (f *Fleet) StoreURI() string {
	if f.spec.Store.Kind == Ferret {
		return "mongodb://" + f.store[0].Addr + "/"
	}
	var hosts []string
	for _, fr := range f.fronts {
		hosts = append(hosts, fr.addr())
	}
	return "mongodb://" + strings.Join(hosts, ",") + "/?replicaSet=" + replicaSet
}

// beginStore makes the mongods a replica set and returns when the store takes writes.
func (f *Fleet) beginStore(ctx context.Context) error {
	if f.spec.Store.Kind == Ferret {
		return f.store[0].Ready(ctx)
	}
	admin := f.members[0].Database("admin")
	if err := poll(ctx, "mongo-0 answers", func(ctx context.Context) error {
		return admin.RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
	}); err != nil {
		return fmt.Errorf("%w (its log: %s)", err, f.store[0].Tail(2000))
	}
	return f.initiate(ctx, admin)
}

func (f *Fleet) initiate(ctx context.Context, admin *mongo.Database) error {
	var members bson.A
	for i, fr := range f.fronts {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: fr.addr()}})
	}
	election := electionTimeout
	if d := f.spec.Store.Election; d > 0 {
		election = int(d.Milliseconds())
	}
	if len(f.fronts) == 1 {
		election = oneElectionTimeout
	}
	config := bson.D{
		{Key: "_id", Value: replicaSet},
		{Key: "members", Value: members},
		{Key: "settings", Value: bson.D{
			{Key: "electionTimeoutMillis", Value: election},
			{Key: "heartbeatIntervalMillis", Value: heartbeat},
		}},
	}
	const alreadyInitialized = 23
	err := poll(ctx, "the replica set is made", func(context.Context) error {
		ictx, cancel := context.WithTimeout(ctx, 5*probeTimeout) // it asks every member
		defer cancel()
		err := admin.RunCommand(ictx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
		if hasCode(err, alreadyInitialized) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return poll(ctx, "the replica set has a primary", func(ctx context.Context) error {
		_ = admin.RunCommand(ctx, bson.D{{Key: "replSetStepUp", Value: 1}}).Err() // it need not wait for its timeout
		_, err := f.primaryNow(ctx)
		return err
	})
}
