package streams

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

const (
	// lockKey stands among the leases (which are "lease.<worker>"), so that the server
	// removes it when its holder dies.
	lockKey = "lock.streams"
	// lockPoll is how often a worker tries to get the lock.
	lockPoll = 50 * time.Millisecond
	// lockPatience bounds the wait for the lock; a holder that died leaves it for the
	// bucket's TTL at most (3 s).
	lockPatience = 10 * time.Second
	// unlockTimeout bounds the removal of the lock; left behind, it ends with the bucket's TTL.
	unlockTimeout = 2 * time.Second
)

// lock makes the workers create downlink streams one after the other. A single
// nats-server refuses overlapping subjects only when the other stream is complete: of
// eight workers that created a shard at once two got one, each with its own epoch. The
// lock ends with its holder, at the latest after Layout.LeaseTTL; a holder that sleeps
// longer is refused by the server.
func (e ensurer) lock(ctx context.Context) (unlock func(), err error) {
	kv, err := e.js.KeyValue(ctx, stream.Workers)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		rev, err := kv.Create(ctx, lockKey, nil)
		if err == nil {
			return func() {
				uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
				defer cancel()
				_ = kv.Delete(uctx, lockKey, jetstream.LastRevision(rev))
			}, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) || time.Since(began) > lockPatience {
			return nil, err
		}
		if !wait(ctx, lockPoll) {
			return nil, ctx.Err()
		}
	}
}
