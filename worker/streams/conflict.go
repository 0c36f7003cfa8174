package streams

import (
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Conflict is returned when a stream, consumer or bucket exists and is another thing
// than what this system needs. It is never repaired: an operator has to decide.
type Conflict struct {
	Stream string // its name; a consumer's is <stream>/<consumer>
	Field  string // as JetStream calls it
	Have   string
	Want   string
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("%s exists with %s %s, this system needs %s", c.Stream, c.Field, c.Have, c.Want)
}

// differ collects the first field in which what exists differs from what is needed.
type differ struct {
	name  string
	first *Conflict
}

func (d *differ) check(field string, have, want any, same bool) {
	if !same && d.first == nil {
		d.first = &Conflict{Stream: d.name, Field: field, Have: fmt.Sprintf("%v", have), Want: fmt.Sprintf("%v", want)}
	}
}

func (d *differ) err() error {
	if d.first == nil {
		return nil
	}
	return d.first
}

// streamConflict compares what cannot be changed without changing what the stream means.
func streamConflict(have, want jetstream.StreamConfig) error {
	d := differ{name: have.Name}
	subjects := slices.Clone(have.Subjects)
	slices.Sort(subjects)
	need := slices.Clone(want.Subjects)
	slices.Sort(need)
	d.check("subjects", have.Subjects, want.Subjects, slices.Equal(subjects, need))
	d.check("retention", have.Retention, want.Retention, have.Retention == want.Retention)
	d.check("discard", have.Discard, want.Discard, have.Discard == want.Discard)
	d.check("storage", have.Storage, want.Storage, have.Storage == want.Storage)
	d.check("republish", republish(have.RePublish), republish(want.RePublish), republish(have.RePublish) == republish(want.RePublish))
	d.check("max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject, unlimited(have.MaxMsgsPerSubject) == unlimited(want.MaxMsgsPerSubject))
	d.check("max_msgs", have.MaxMsgs, "no limit", unlimited(have.MaxMsgs) < 0)
	d.check("no_ack", have.NoAck, want.NoAck, have.NoAck == want.NoAck)
	d.check("mirror", have.Mirror, "none", have.Mirror == nil)
	d.check("sources", len(have.Sources), "none", len(have.Sources) == 0)
	d.check("sealed", have.Sealed, want.Sealed, have.Sealed == want.Sealed)
	return d.err()
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "none"
	}
	if r.HeadersOnly {
		return r.Source + " to " + r.Destination + ", headers only"
	}
	return r.Source + " to " + r.Destination
}

func unlimited(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

// withLimits returns have with the limits of want, and whether that changed anything.
func withLimits(have, want jetstream.StreamConfig) (jetstream.StreamConfig, bool) {
	next := have
	next.MaxBytes, next.MaxAge, next.Replicas, next.AllowDirect = want.MaxBytes, want.MaxAge, want.Replicas, want.AllowDirect
	changed := next.MaxBytes != have.MaxBytes || next.MaxAge != have.MaxAge ||
		next.Replicas != have.Replicas || next.AllowDirect != have.AllowDirect
	if next.Duplicates > next.MaxAge && next.MaxAge > 0 {
		next.Duplicates = next.MaxAge
	}
	return next, changed
}

// consumerConflict compares what makes a lane's consumer what it is.
func consumerConflict(stream string, have, want jetstream.ConsumerConfig) error {
	d := differ{name: stream + "/" + have.Name}
	d.check("ack_policy", have.AckPolicy, want.AckPolicy, have.AckPolicy == want.AckPolicy)
	d.check("deliver_policy", have.DeliverPolicy, want.DeliverPolicy, have.DeliverPolicy == want.DeliverPolicy)
	d.check("priority_policy", have.PriorityPolicy, want.PriorityPolicy, have.PriorityPolicy == want.PriorityPolicy)
	d.check("priority_groups", have.PriorityGroups, want.PriorityGroups, slices.Equal(have.PriorityGroups, want.PriorityGroups))
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = append(slices.Clone(filters), have.FilterSubject)
	}
	d.check("filter", filters, "none", len(filters) == 0)
	d.check("headers_only", have.HeadersOnly, false, !have.HeadersOnly)
	return d.err()
}

// withConsumerLimits is withLimits for a consumer.
func withConsumerLimits(have, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, bool) {
	next := have
	next.AckWait, next.MaxAckPending, next.MaxDeliver, next.PinnedTTL = want.AckWait, want.MaxAckPending, want.MaxDeliver, want.PinnedTTL
	changed := next.AckWait != have.AckWait || next.MaxAckPending != have.MaxAckPending ||
		next.MaxDeliver != have.MaxDeliver || next.PinnedTTL != have.PinnedTTL
	return next, changed
}
