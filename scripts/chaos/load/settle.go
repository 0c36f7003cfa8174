package load

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/shared/protocol"
)

// readers is how many users read their history at a time.
const readers = 8

// AwaitResolved waits until no send is unresolved.
func (l *Load) AwaitResolved(ctx context.Context) error {
	for _, d := range l.devices {
		if err := d.await(ctx, func() bool { return len(d.open) == 0 }); err != nil {
			return fmt.Errorf("%d sends are unresolved: %w", d.unresolved(), err)
		}
	}
	return nil
}

// ReadHistory lets every user read all of its conversations, writes them down, and
// returns the last seq of each, by user and conversation.
func (l *Load) ReadHistory(ctx context.Context) (map[string]map[string]int64, error) {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(readers)
	var mu sync.Mutex
	all := map[string]map[string]int64{}
	begun := map[string]bool{}
	for _, d := range l.devices {
		if begun[d.user] {
			continue // by another device
		}
		begun[d.user] = true
		eg.Go(func() error {
			lasts, err := d.readAll(ctx)
			mu.Lock()
			defer mu.Unlock()
			all[d.user] = lasts
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	return all, nil
}

func (d *device) readAll(ctx context.Context) (map[string]int64, error) {
	lasts := map[string]int64{}
	cursor := ""
	for {
		page, err := d.c.Conversations(ctx, protocol.ConversationsRequest{Limit: protocol.MaxPage, Cursor: cursor})
		if err != nil {
			return nil, fmt.Errorf("conversations of %s: %w", d.user, err)
		}
		for _, c := range page.Conversations {
			if _, twice := lasts[c.ConvID]; twice {
				continue
			}
			if lasts[c.ConvID], err = d.readConversation(ctx, c.ConvID); err != nil {
				return nil, err
			}
		}
		if !page.More {
			return lasts, nil
		}
		cursor = page.Cursor
	}
}

func (d *device) readConversation(ctx context.Context, conv string) (last int64, err error) {
	n := int64(0)
	for {
		page, err := d.c.History(ctx, "", protocol.HistoryRequest{ConvID: conv, AfterSeq: &last, Limit: protocol.MaxPage})
		if err != nil {
			return 0, fmt.Errorf("history of %s for %s: %w", conv, d.user, err)
		}
		for i := range page.Messages {
			r := history.Record{Kind: history.Row, User: d.user}
			message(&r, &page.Messages[i])
			d.l.o.History.Add(r)
			last = page.Messages[i].Seq
			n++
		}
		if !page.More || len(page.Messages) == 0 {
			d.l.o.History.Add(history.Record{Kind: history.Read, User: d.user, Conv: conv, Seq: n})
			return last, nil
		}
	}
}

// AwaitShown waits until every device has shown all of its user's conversations to their
// ends, as ReadHistory returned them.
func (l *Load) AwaitShown(ctx context.Context, lasts map[string]map[string]int64) error {
	for _, d := range l.devices {
		if err := d.await(ctx, func() bool { return d.shown(lasts[d.user]) }); err != nil {
			return fmt.Errorf("not everything was shown: %w", err)
		}
	}
	return nil
}

// shown: d.mu is held.
func (d *device) shown(lasts map[string]int64) bool {
	for conv, last := range lasts {
		if seen, began := d.seen[conv]; seen < last && (began || !d.fresh) {
			return false
		}
	}
	return true
}

// End writes down what is unresolved and ends all lives.
func (l *Load) End() {
	for _, d := range l.devices {
		if d.c == nil { // never begun
			continue
		}
		l.o.History.Add(history.Record{Kind: history.Outbox, Dev: d.id, Life: d.life, Seq: int64(d.unresolved())})
		d.end(false)
	}
}
