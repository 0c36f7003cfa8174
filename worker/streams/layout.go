package streams

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/wirepost/wirepost/shared/stream"
)

// Layout says how many streams there are and how much they may hold. All workers of a
// system run with the same one; zero fields take the defaults named here.
type Layout struct {
	Lanes  int // uplink lanes, 1 to 1024; 0: stream.DefaultLanes
	Shards int // downlink shards, 1 to 1024; 0: stream.DefaultShards

	// Replicas of every stream and bucket: 1, 3 or 5; 0: 1. A single server can only
	// keep 1.
	Replicas int

	// UplinkMaxBytes is the most bytes that wait for the workers, over all lanes; 0: 1 GiB.
	// A full lane refuses new messages (discard new), it never drops one.
	UplinkMaxBytes int64
	// DownlinkMaxBytes is the most bytes of frames kept for resume, over all shards; 0: 1 GiB.
	// The oldest go first. nats-server needs about 2.5 times as much memory.
	DownlinkMaxBytes int64
	// DownlinkMaxAge is how long a frame is kept for resume; 0: 10 minutes.
	DownlinkMaxAge time.Duration
	// DeadMaxBytes is the most bytes of dead messages kept for the operator, the oldest
	// go first; 0: 256 MiB.
	DeadMaxBytes int64

	// AckPending is how many messages of a lane may be with a worker, unacknowledged;
	// 0: 512. It is also the most that are under suspicion after a crash.
	AckPending int
	// AckWait is after what time an unacknowledged message is delivered again; 0: 10 s,
	// at least 2 s. Workers prolong it for messages that they hold.
	AckWait time.Duration
	// PinnedTTL is how long a lane stays with an owner that is silent; 0:
	// stream.PinnedTTL. Only tests set it.
	PinnedTTL time.Duration
	// LeaseTTL is how long the server keeps the lease of a worker that is silent; 0: 3 s.
	LeaseTTL time.Duration
}

const (
	mostStreams       = 1024
	deadMaxAge        = 30 * 24 * time.Hour
	defaultLease      = 3 * time.Second
	minAckWait        = 2 * time.Second
	defaultDuplicates = 2 * time.Minute // JetStream's own default
	gibibyte          = 1 << 30
	minStreamSize     = 1 << 20 // of one stream, whatever the total divided by the number is
)

// errLayout is wrapped by errors about a Layout that cannot be.
var errLayout = errors.New("impossible layout of streams")

// filled returns l with its defaults, or an error that names the field which is wrong.
func (l Layout) filled() (Layout, error) {
	l.Lanes = cmp.Or(l.Lanes, stream.DefaultLanes)
	l.Shards = cmp.Or(l.Shards, stream.DefaultShards)
	l.Replicas = cmp.Or(l.Replicas, 1)
	l.UplinkMaxBytes = cmp.Or(l.UplinkMaxBytes, gibibyte)
	l.DownlinkMaxBytes = cmp.Or(l.DownlinkMaxBytes, gibibyte)
	l.DownlinkMaxAge = cmp.Or(l.DownlinkMaxAge, 10*time.Minute)
	l.DeadMaxBytes = cmp.Or(l.DeadMaxBytes, gibibyte/4)
	l.AckPending = cmp.Or(l.AckPending, 512)
	l.AckWait = cmp.Or(l.AckWait, 10*time.Second)
	l.PinnedTTL = cmp.Or(l.PinnedTTL, stream.PinnedTTL)
	l.LeaseTTL = cmp.Or(l.LeaseTTL, defaultLease)
	switch {
	case l.Lanes < 1 || l.Lanes > mostStreams:
		return l, fmt.Errorf("%w: %d lanes", errLayout, l.Lanes)
	case l.Shards < 1 || l.Shards > mostStreams:
		return l, fmt.Errorf("%w: %d shards", errLayout, l.Shards)
	case l.Replicas != 1 && l.Replicas != 3 && l.Replicas != 5:
		return l, fmt.Errorf("%w: %d replicas", errLayout, l.Replicas)
	case l.UplinkMaxBytes < 0 || l.DownlinkMaxBytes < 0 || l.DeadMaxBytes < 0:
		return l, fmt.Errorf("%w: a limit below zero bytes", errLayout)
	case l.AckPending < 1:
		return l, fmt.Errorf("%w: %d messages unacknowledged", errLayout, l.AckPending)
	case l.AckWait < minAckWait || l.DownlinkMaxAge < time.Second || l.PinnedTTL < 0 || l.LeaseTTL < 0:
		return l, fmt.Errorf("%w: a duration is too short", errLayout)
	}
	return l, nil
}

// share is what one of n streams gets of a total.
func share(total int64, n int) int64 { return max(total/int64(n), minStreamSize) }
