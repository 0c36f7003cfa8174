package mongostore

import (
	"context"
	"sync"
)

// flights keeps the Appends of one process from writing to the same conversation at the
// same time. Nothing depends on it but speed: other processes are kept out by keys alone.
//
// A caller holds conversations only during an insert and waits only while it holds none,
// so nobody waits in a circle.
type flights struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // conversation → closed when its holder lets go
}

func newFlights() *flights { return &flights{busy: map[string]chan struct{}{}} }

// take holds the conversations of those groups that are free and returns them as mine,
// the others as rest. When none is free it waits for one. release lets go of mine.
func (f *flights) take(ctx context.Context, groups []*group) (mine, rest []*group, release func(), err error) {
	for {
		f.mu.Lock()
		done := make(chan struct{})
		for _, g := range groups {
			if f.busy[g.conv] != nil {
				rest = append(rest, g)
				continue
			}
			f.busy[g.conv] = done
			mine = append(mine, g)
		}
		wait := f.busy[groups[0].conv]
		f.mu.Unlock()
		if len(mine) > 0 {
			return mine, rest, func() { f.release(mine, done) }, nil
		}
		rest = rest[:0]
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, nil, ctx.Err()
		}
	}
}

func (f *flights) release(groups []*group, done chan struct{}) {
	f.mu.Lock()
	for _, g := range groups {
		delete(f.busy, g.conv)
	}
	f.mu.Unlock()
	close(done)
}
