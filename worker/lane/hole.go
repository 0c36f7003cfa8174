package lane

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

// holeTimeout bounds the question about a hole: the pin must not end meanwhile.
const holeTimeout = time.Second

// whole reports whether the run has everything in front of seq that is in the stream.
//
// The consumer sequence alone does not tell: when another worker's late request resets
// the consumer behind our back, its count starts again, and when just as many deliveries
// are lost then as were counted here, the next one looks right [r]. A run may jump over
// what is acknowledged, and so deleted; the stream's leader knows that. It is asked only
// when there is a hole, which is rare: after a take-over, where two owners have
// acknowledged in turns. The first message of a run has none before it.
func (t *tenure) whole(seq uint64) bool {
	if t.at.last == 0 || seq == t.at.last+1 || seq <= t.at.empty {
		return true
	}
	next, err := t.nextInStream(t.at.last + 1)
	if err != nil {
		t.log.Warn("hole in a run of messages, and what was in it is not known", "after", t.at.last, "got", seq, "error", err)
		return false
	}
	t.at.empty = next
	return seq <= next
}

// nextInStream returns the sequence of the first message of the lane that is not before
// seq. It has no use for jetstream.Stream, which would ask for the stream's state first.
func (t *tenure) nextInStream(seq uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(t.work, holeTimeout)
	defer cancel()
	ask, err := json.Marshal(struct {
		Seq  uint64 `json:"seq"`
		Next string `json:"next_by_subj"`
	}{seq, ">"})
	if err != nil {
		return 0, err
	}
	m, err := t.g.js.Conn().RequestWithContext(ctx, apiPrefix(t.g.js.Options())+"STREAM.MSG.GET."+stream.Up(t.lane), ask)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return 0, err
	}
	if answer.Error != nil { // the stream has none: a leader that does not know seq yet, or a new stream
		return 0, answer.Error
	}
	return answer.Message.Seq, nil
}
