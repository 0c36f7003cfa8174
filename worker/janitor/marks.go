package janitor

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/subject"
)

// OnJetStream reads the edges' marks from the downlink's shards.
func OnJetStream(js jetstream.JetStream, shards int) Marks {
	return func(ctx context.Context, edge string) (uint64, error) {
		if !subject.Plain(edge, subject.MaxEdge) {
			return 0, nil // no edge has such a name, and no stream such a mark
		}
		mark := subject.Mark(subject.HomeShard(edge, shards), edge)
		name, err := js.StreamNameBySubject(ctx, mark)
		if err != nil {
			return 0, fmt.Errorf("find the stream of %s: %w", mark, err)
		}
		s, err := js.Stream(ctx, name)
		if err != nil {
			return 0, fmt.Errorf("look up %s: %w", name, err)
		}
		msg, err := s.GetLastMsgForSubject(ctx, mark)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read the mark of %s: %w", edge, err)
		}
		return msg.Sequence, nil
	}
}
