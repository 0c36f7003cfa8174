package streams

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
)

// Ensure creates every stream, consumer and bucket of the layout that is missing,
// and brings the limits of the others to those of the layout. It returns a *Conflict
// when one that exists means something else, and any other error when the server did
// not do its part: then it may be called again. It is safe to call at any time, by any
// number of workers at once.
func Ensure(ctx context.Context, js jetstream.JetStream, layout Layout) error {
	return ensure(ctx, js, layout, true, func() {})
}

// ensure leaves the limits of what exists alone unless limits is set: workers whose
// configurations differ would otherwise change them back and forth for ever. made is called
// for each thing that was not there and is made.
func ensure(ctx context.Context, js jetstream.JetStream, layout Layout, limits bool, made func()) error {
	l, err := layout.filled()
	if err != nil {
		return err
	}
	e := ensurer{js: js, limits: limits, made: made}
	if limits {
		if err := e.noLaneBeyond(ctx, l.Lanes); err != nil {
			return err
		}
	}
	for _, b := range buckets(l) {
		if err := e.bucket(ctx, b); err != nil {
			return err
		}
	}
	if err := e.stream(ctx, dead(l)); err != nil {
		return err
	}
	for lane := range l.Lanes {
		if err := e.stream(ctx, up(l, lane)); err != nil {
			return err
		}
		if err := e.consumer(ctx, stream.Up(lane), work(l)); err != nil {
			return err
		}
	}
	for shard := range l.Shards {
		if err := e.down(ctx, l, shard); err != nil {
			return err
		}
	}
	return nil
}

func up(l Layout, lane int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        stream.Up(lane),
		Description: "uplink: what clients sent and no worker has committed yet",
		Subjects:    []string{subject.UpLane(lane)},
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew, // the default would delete what no worker has seen
		MaxBytes:    share(l.UplinkMaxBytes, l.Lanes),
		Storage:     jetstream.FileStorage,
		Replicas:    l.Replicas,
		FirstSeq:    stream.FirstSeq(time.Now()), // its incarnation, which an existing one keeps
	}
}

func work(l Layout) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        stream.Consumer,
		Name:           stream.Consumer,
		Description:    "the lane's one owner",
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        l.AckWait,
		MaxDeliver:     -1, // a message is never left behind undelivered: see the lane's suspects
		MaxAckPending:  l.AckPending,
		PriorityPolicy: jetstream.PriorityPolicyPinned,
		PriorityGroups: []string{stream.Group},
		PinnedTTL:      l.PinnedTTL,
	}
}

func down(l Layout, shard int, epoch string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        stream.DownName{Shards: l.Shards, Epoch: epoch, Shard: shard}.String(),
		Description: "downlink: frames for users, kept for resume",
		Subjects:    []string{subject.DownShard(shard), subject.MarkShard(shard)},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    share(l.DownlinkMaxBytes, l.Shards),
		MaxAge:      l.DownlinkMaxAge,
		Duplicates:  min(l.DownlinkMaxAge, defaultDuplicates),
		Storage:     jetstream.FileStorage, // replay from memory grows with the stream, from file it does not
		Replicas:    l.Replicas,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: subject.RepublishFrom(shard), Destination: subject.RepublishTo(shard)},
	}
}

func dead(l Layout) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        stream.Dead,
		Description: "uplink messages that can never succeed, each with its reason",
		Subjects:    []string{subject.DeadAll()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld, // a full one must not stop a lane
		MaxBytes:    l.DeadMaxBytes,
		MaxAge:      deadMaxAge,
		Storage:     jetstream.FileStorage,
		Replicas:    l.Replicas,
		AllowDirect: true,
	}
}

func buckets(l Layout) []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{
		{Bucket: stream.Workers, Description: "leases of the live workers", TTL: l.LeaseTTL,
			History: 1, Storage: jetstream.FileStorage, Replicas: l.Replicas},
		{Bucket: stream.Suspects, Description: "per lane: its owner, and the message that may have killed the one before",
			History: 1, Storage: jetstream.FileStorage, Replicas: l.Replicas},
	}
}

type ensurer struct {
	js     jetstream.JetStream
	limits bool
	made   func()
}

// count calls made when something was created without an error, which it hands on.
func (e ensurer) count(err error) error {
	if err == nil {
		e.made()
	}
	return err
}

// stream creates want, or compares it with the one of its name.
func (e ensurer) stream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := e.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = e.js.CreateStream(ctx, want)
		err = e.count(err)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another worker, with other limits
			return nil
		}
		if overlaps(err) {
			return e.overlap(ctx, want)
		}
		return wrap(err, "create "+want.Name)
	}
	if err != nil {
		return wrap(err, "look up "+want.Name)
	}
	return e.compare(ctx, s.CachedInfo().Config, want)
}

func (e ensurer) compare(ctx context.Context, have, want jetstream.StreamConfig) error {
	if err := streamConflict(have, want); err != nil {
		return err
	}
	next, changed := withLimits(have, want)
	if !changed || !e.limits {
		return nil
	}
	_, err := e.js.UpdateStream(ctx, next)
	return wrap(err, "update the limits of "+want.Name)
}

// noLaneBeyond refuses to work with fewer lanes than there are: this worker would take
// part in the share of lanes and leave those that it does not know without an owner.
func (e ensurer) noLaneBeyond(ctx context.Context, lanes int) error {
	name := stream.Up(lanes)
	_, err := e.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil
	case err != nil:
		return wrap(err, "look for "+name)
	}
	return &Conflict{Stream: name, Field: "lane", Have: strconv.Itoa(lanes),
		Want: fmt.Sprintf("%d lanes as it is told (LANES); to have so few, empty and delete the other lanes' streams first", lanes)}
}

// overlap names the stream that holds a subject which want needs.
func (e ensurer) overlap(ctx context.Context, want jetstream.StreamConfig) error {
	for _, s := range want.Subjects {
		name, err := e.holder(ctx, s)
		if err != nil {
			return err
		}
		if name != "" && name != want.Name {
			return &Conflict{Stream: name, Field: "subjects", Have: s, Want: "that subject only in " + want.Name}
		}
	}
	return fmt.Errorf("create %s: its subjects overlap with another stream", want.Name)
}

// holder returns the stream whose subjects overlap subject, or "".
func (e ensurer) holder(ctx context.Context, subject string) (string, error) {
	names := e.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	found := ""
	for name := range names.Name() {
		if found == "" {
			found = name
		}
	}
	return found, wrap(names.Err(), "find the stream of "+subject)
}

// down takes the shard's stream that exists, whatever its epoch, or creates one.
func (e ensurer) down(ctx context.Context, l Layout, shard int) error {
	found, err := e.existingDown(ctx, l, shard)
	if found || err != nil {
		return err
	}
	unlock, err := e.lock(ctx)
	if err != nil {
		return wrap(err, "wait for another worker that creates streams")
	}
	defer unlock()
	found, err = e.existingDown(ctx, l, shard)
	if found || err != nil {
		return err
	}
	want := down(l, shard, newEpoch())
	_, err = e.js.CreateStream(ctx, want)
	err = e.count(err)
	if overlaps(err) { // the winner of a race in a cluster, or a stream that has only the marks
		if found, ferr := e.existingDown(ctx, l, shard); found || ferr != nil {
			return ferr
		}
		return e.overlap(ctx, want)
	}
	return wrap(err, "create "+want.Name)
}

func (e ensurer) existingDown(ctx context.Context, l Layout, shard int) (found bool, err error) {
	name, err := e.holder(ctx, subject.DownShard(shard))
	if name == "" || err != nil {
		return false, err
	}
	return true, e.takeDown(ctx, l, shard, name)
}

func (e ensurer) takeDown(ctx context.Context, l Layout, shard int, name string) error {
	d, err := stream.ParseDown(name)
	if err != nil {
		return &Conflict{Stream: name, Field: "subjects", Have: subject.DownShard(shard), Want: "that subject only in a stream DOWN_<shards>_<epoch>_<shard>"}
	}
	if d.Shards != l.Shards {
		return &Conflict{Stream: name, Field: "number of shards", Have: fmt.Sprint(d.Shards), Want: fmt.Sprint(l.Shards)}
	}
	if d.Shard != shard {
		return &Conflict{Stream: name, Field: "subjects", Have: subject.DownShard(shard), Want: subject.DownShard(d.Shard)}
	}
	s, err := e.js.Stream(ctx, name)
	if err != nil {
		return wrap(err, "look up "+name)
	}
	return e.compare(ctx, s.CachedInfo().Config, down(l, shard, d.Epoch))
}

func (e ensurer) consumer(ctx context.Context, streamName string, want jetstream.ConsumerConfig) error {
	c, err := e.js.Consumer(ctx, streamName, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = e.js.CreateConsumer(ctx, streamName, want)
		err = e.count(err)
		if errors.Is(err, jetstream.ErrConsumerExists) || apiCode(err) == codeWorkQueueTaken {
			return e.takenConsumer(ctx, streamName, want, err)
		}
		return wrap(err, "create the consumer of "+streamName)
	}
	if err != nil {
		return wrap(err, "look up the consumer of "+streamName)
	}
	have := c.CachedInfo().Config
	if err := consumerConflict(streamName, have, want); err != nil {
		return err
	}
	next, changed := withConsumerLimits(have, want)
	if !changed || !e.limits {
		return nil
	}
	_, err = e.js.UpdateConsumer(ctx, streamName, next)
	return wrap(err, "update the limits of the consumer of "+streamName)
}

// takenConsumer tells a lost race (fine) from a consumer of another name.
func (e ensurer) takenConsumer(ctx context.Context, streamName string, want jetstream.ConsumerConfig, cause error) error {
	c, err := e.js.Consumer(ctx, streamName, want.Durable)
	if err == nil {
		return consumerConflict(streamName, c.CachedInfo().Config, want)
	}
	s, err := e.js.Stream(ctx, streamName)
	if err != nil {
		return wrap(err, "look up "+streamName)
	}
	names := s.ConsumerNames(ctx)
	for name := range names.Name() {
		return &Conflict{Stream: streamName, Field: "consumer", Have: name, Want: want.Durable + " and no other"}
	}
	return wrap(cause, "create the consumer of "+streamName)
}

func (e ensurer) bucket(ctx context.Context, want jetstream.KeyValueConfig) error {
	kv, err := e.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = e.js.CreateKeyValue(ctx, want)
		err = e.count(err)
		if errors.Is(err, jetstream.ErrBucketExists) {
			return nil
		}
		return wrap(err, "create bucket "+want.Bucket)
	}
	if err != nil {
		return wrap(err, "look up bucket "+want.Bucket)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return wrap(err, "look up bucket "+want.Bucket)
	}
	if !e.limits || (status.TTL() == want.TTL && status.Config().Replicas == want.Replicas) {
		return nil
	}
	next := status.Config()
	next.TTL, next.Replicas = want.TTL, want.Replicas
	_, err = e.js.UpdateKeyValue(ctx, next)
	return wrap(err, "update the limits of bucket "+want.Bucket)
}

// Codes of the JetStream API that the client has no error for.
const (
	codeSubjectOverlap = 10065 // subjects overlap with an existing stream
	codeWorkQueueTaken = 10099 // multiple non-filtered consumers not allowed on workqueue stream
)

func apiCode(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

func overlaps(err error) bool { return apiCode(err) == codeSubjectOverlap }

func wrap(err error, step string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}

// newEpoch returns 8 characters of [a-z2-7], 40 random bits.
func newEpoch() string { return strings.ToLower(rand.Text()[:8]) }
