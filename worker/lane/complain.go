package lane

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// complainEvery is the least time between two log lines about the same trouble.
const complainEvery = 5 * time.Second

// complain logs a trouble that goes on, not each of its tries.
type complain struct {
	log  *slog.Logger
	text string
	last time.Time
}

func (c *complain) on(err error) {
	if err == nil {
		if !c.last.IsZero() {
			c.last = time.Time{}
			c.log.Info("over: " + c.text)
		}
		return
	}
	if time.Since(c.last) >= complainEvery {
		c.last = time.Now()
		c.log.Warn(c.text, "error", err)
	}
}

// missing reports that something that streams.Ensure creates is not there.
func missing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
