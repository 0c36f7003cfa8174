package system

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/wirepost/wirepost/scripts/bench/proc"
)

const replicaSet = "rs0"

// ErrNoMongod is returned when the path of a mongod is needed and not given.
var ErrNoMongod = errors.New("no mongod: put one on PATH, or run `make mongod`")

// startMongod starts a replica set of one node and returns its address.
func (s *System) startMongod(ctx context.Context) (uri string, err error) {
	if s.bin.Mongod == "" {
		return "", ErrNoMongod
	}
	addr, err := proc.FreeAddr()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(s.dir, "mongod")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	s.Mongod, err = s.run(proc.Spec{Name: "mongod", Bin: s.bin.Mongod, Args: []string{
		"--replSet", replicaSet, "--bind_ip", host(addr), "--port", port(addr), "--dbpath", dir, "--nounixsocket",
		"--logpath", filepath.Join(s.dir, "mongod.log"), "--oplogSize", "512", "--wiredTigerCacheSizeGB", "1",
		"--setParameter", "diagnosticDataCollectionEnabled=false"}})
	if err != nil {
		return "", err
	}
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + addr + "/?directConnection=true").
		SetHeartbeatInterval(500 * time.Millisecond).SetServerSelectionTimeout(time.Second))
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	err = s.Mongod.Await(ctx, func(ctx context.Context) error { return becomePrimary(ctx, client.Database("admin"), addr) })
	return "mongodb://" + addr + "/?replicaSet=" + replicaSet, err
}

var errNoPrimary = errors.New("no primary yet")

func becomePrimary(ctx context.Context, admin *mongo.Database, addr string) error {
	config := bson.D{
		{Key: "_id", Value: replicaSet},
		{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: addr}}}},
		{Key: "settings", Value: bson.D{{Key: "electionTimeoutMillis", Value: 500}}}, // there is nobody to wait for
	}
	const alreadyInitialized = 23
	err := admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	var se mongo.ServerError
	if err != nil && (!errors.As(err, &se) || !se.HasErrorCode(alreadyInitialized)) {
		return err
	}
	var hello struct {
		Writable bool `bson:"isWritablePrimary"`
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return err
	}
	if !hello.Writable {
		return errNoPrimary
	}
	return nil
}

// host and port are the halves of an address that proc.FreeAddr made.
func host(addr string) string { h, _, _ := net.SplitHostPort(addr); return h }
func port(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
