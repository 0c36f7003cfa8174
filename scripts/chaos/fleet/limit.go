package fleet

import (
	"context"
	"fmt"

	"github.com/wirepost/wirepost/shared/stream"
)

// LimitLanes sets the most bytes of each lane of the uplink, as an operator may.
func (f *Fleet) LimitLanes(ctx context.Context, most int64) error {
	for lane := range f.spec.Lanes {
		s, err := f.js.Stream(ctx, stream.Up(lane))
		if err != nil {
			return fmt.Errorf("limit lane %d: %w", lane, err)
		}
		cfg := s.CachedInfo().Config
		cfg.MaxBytes = most
		if _, err := f.js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("limit lane %d: %w", lane, err)
		}
	}
	return nil
}
