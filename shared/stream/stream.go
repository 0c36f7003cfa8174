// Package stream names every JetStream stream, consumer and key-value bucket of the
// system and the few limits that both sides must agree on.
//
// It never creates anything: that is the worker's room streams.
package stream

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Defaults of the layout. Edges and workers of one system must agree on both numbers:
// an edge refuses to serve when a downlink stream names another number of shards; a
// user of a lane that no worker created gets no acknowledgement.
const (
	DefaultLanes  = 8
	DefaultShards = 4
)

// Consumer is the durable pull consumer of each uplink lane, Group its one priority group.
const (
	Consumer = "work"
	Group    = "owner"
)

// PinnedTTL is how long a lane stays with an owner that stopped asking for messages
// (the server's pinned_client policy, NATS ADR-42).
const PinnedTTL = 3 * time.Second

// An edge marks its home shard (subject.HomeShard) at least every LeaseInterval. An edge
// whose mark there does not move for LeaseLost is lost, and its sessions are removed.
const (
	LeaseInterval = 10 * time.Second
	LeaseLost     = 45 * time.Second
)

// Dead is the stream of uplink messages that can never succeed.
const Dead = "DEAD"

// The key-value buckets of the workers.
const (
	Workers  = "workers"  // lease.<worker> → its lease, which the server removes when it is not renewed
	Suspects = "suspects" // <lane> → its owner, and the uplink message that may have killed the one before
)

// EdgeInbox and WorkerInbox are what the reply subjects of each role begin with, so that
// rights can keep one role from reading what another is answered.
const (
	EdgeInbox   = "_INBOX_edge"
	WorkerInbox = "_INBOX_worker"
)

// Up is the name of an uplink lane's stream.
func Up(lane int) string { return "UP_" + strconv.Itoa(lane) }

// ErrNotDown is returned when a stream name is not a downlink shard's.
var ErrNotDown = errors.New("stream is no downlink shard")

// DownName names one incarnation of one downlink shard: DOWN_<shards>_<epoch>_<shard>.
// The number of shards is part of the name so that an edge which counts otherwise
// notices at its first marker; the epoch, so that every frame (Nats-Stream) and every
// PubAck tells which incarnation its sequence belongs to.
type DownName struct {
	Shards int    // of the whole system
	Epoch  string // [a-z0-9]{1,16}, new each time the stream is created anew
	Shard  int    // 0 ≤ Shard < Shards
}

func (d DownName) String() string {
	return "DOWN_" + strconv.Itoa(d.Shards) + "_" + d.Epoch + "_" + strconv.Itoa(d.Shard)
}

// ParseDown takes the name of a downlink stream apart.
func ParseDown(name string) (DownName, error) {
	part := strings.Split(name, "_")
	if len(part) != 4 || part[0] != "DOWN" || !validEpoch(part[2]) {
		return DownName{}, ErrNotDown
	}
	shards, err1 := strconv.Atoi(part[1])
	shard, err2 := strconv.Atoi(part[3])
	d := DownName{Shards: shards, Epoch: part[2], Shard: shard}
	if err1 != nil || err2 != nil || shard < 0 || shard >= shards || d.String() != name {
		return DownName{}, ErrNotDown
	}
	return d, nil
}

func validEpoch(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || 'z' < c) && (c < '0' || '9' < c) {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 16
}
