package lane

import (
	"context"
	"errors"

	"github.com/wirepost/wirepost/shared/stream"
)

// release hands the lane to whoever asks for it.
func (t *tenure) release() {
	t.feed.close()
	if t.reset == "" || t.g.abort.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.g.abort, callTimeout)
	defer cancel()
	if err := t.g.js.Conn().FlushWithContext(ctx); err != nil { // the acks before the reset
		t.log.Warn("lane was not released, it is free when its pin ends", "error", err)
		return
	}
	rec := t.ledger.rec
	rec.Clean = true
	err := t.ledger.store(ctx, rec)
	if errors.Is(err, errReplaced) {
		return
	}
	if err == nil { // what was fetched and not worked is the successor's at once
		_, err = t.g.js.ResetConsumer(ctx, stream.Up(t.lane), stream.Consumer)
	}
	if err == nil {
		err = t.unpin(ctx)
	}
	if err != nil {
		t.log.Warn("lane was not released, it is free when its pin ends", "error", err)
	}
}

// inheritPin ends the pin of the worker of this name that died. If it is not dead after
// all, it loses the lane as to any other take-over. If this fails, the pin ends by itself.
func (t *tenure) inheritPin() {
	ctx, cancel := context.WithTimeout(t.work, callTimeout)
	defer cancel()
	if err := t.unpin(ctx); err != nil {
		t.log.Info("pin of the worker that died before is left to its end", "error", err)
	}
}

func (t *tenure) unpin(ctx context.Context) error {
	s, err := t.g.js.Stream(ctx, stream.Up(t.lane))
	if err != nil {
		return err
	}
	return s.UnpinConsumer(ctx, stream.Consumer, stream.Group)
}
