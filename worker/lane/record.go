package lane

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

// record is what the workers know of a lane over their deaths. One key per lane in the
// bucket suspects; every write is conditional on the revision read before, so an owner
// that was replaced cannot write any more. Fields may be added.
type record struct {
	Owner    string    `json:"owner"`           // worker/nonce of the owner
	Consumer time.Time `json:"consumer"`        // creation of the consumer that the sequences belong to
	Clean    bool      `json:"clean"`           // the owner released the lane and lives or ended well
	Until    uint64    `json:"until,omitempty"` // up to this stream sequence messages may have been with an owner that died
	Suspect  uint64    `json:"suspect,omitempty"`
	Last     uint64    `json:"last,omitempty"`   // of the suspects that are worked together from Suspect on; 0: it is the only one
	Count    int       `json:"count,omitempty"`  // how often a worker began to work the suspects and did not come back
	Single   uint64    `json:"single,omitempty"` // up to it suspects are worked one by one: they were together when a worker died
}

// acquitted is r without suspects.
func (r record) acquitted() record {
	r.Until, r.Suspect, r.Last, r.Count, r.Single = 0, 0, 0, 0, 0
	return r
}

// errReplaced is returned when another worker has written the lane's record.
var errReplaced = errors.New("another worker has taken the lane")

// ledger is the lane's record and its revision. Used by one goroutine at a time.
type ledger struct {
	js   jetstream.JetStream
	lane int
	rec  record
	rev  uint64 // 0: no record yet
}

// load reads the record; a missing one is the zero record.
func (l *ledger) load(ctx context.Context) error {
	kv, err := l.js.KeyValue(ctx, stream.Suspects)
	if err != nil {
		return err
	}
	e, err := kv.Get(ctx, strconv.Itoa(l.lane))
	l.rec, l.rev = record{}, 0
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l.rec, l.rev = parseRecord(e.Value()), e.Revision()
	return nil
}

// parseRecord reads what is in the bucket. What is no worker's record reads as that of an
// owner who died and of whom nothing is known: it is damaged, or an acknowledgement that
// somebody had JetStream put there (docs/security.md), which is JSON without an owner.
func parseRecord(body []byte) record {
	var r record
	if json.Unmarshal(body, &r) != nil || r.Owner == "" {
		return record{}
	}
	return r
}

// store writes rec if nobody else has written since. A write whose answer was lost is
// found again.
func (l *ledger) store(ctx context.Context, rec record) error {
	kv, err := l.js.KeyValue(ctx, stream.Suspects)
	if err != nil {
		return err
	}
	body, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	key := strconv.Itoa(l.lane)
	var rev uint64
	if l.rev == 0 {
		rev, err = kv.Create(ctx, key, body)
	} else {
		rev, err = kv.Update(ctx, key, body, l.rev)
	}
	if err != nil {
		e, gerr := kv.Get(ctx, key)
		switch {
		case gerr == nil && string(e.Value()) == string(body):
			rev = e.Revision()
		case gerr == nil && e.Revision() != l.rev:
			return errReplaced
		default:
			return err
		}
	}
	l.rec, l.rev = rec, rev
	return nil
}
