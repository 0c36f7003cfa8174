package worker

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	probeEvery   = 2 * time.Second
	probeTimeout = 1500 * time.Millisecond
)

// probe asks again and again whether a neighbour is there, so that a readiness check
// never waits for it.
type probe struct {
	ask  func(context.Context) error
	last atomic.Pointer[error] // nil: there
}

// run asks until ctx ends.
func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		actx, cancel := context.WithTimeout(ctx, probeTimeout)
		err := p.ask(actx)
		cancel()
		if err == nil {
			p.last.Store(nil)
		} else {
			p.last.Store(&err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ready is the answer to the last question; nil before the first.
func (p *probe) ready() error {
	if err := p.last.Load(); err != nil {
		return *err
	}
	return nil
}
