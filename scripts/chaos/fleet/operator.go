package fleet

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

// KillAll kills processes at the same moment and returns when all are gone.
func KillAll(all []*Process) { each(all, (*Process).Kill) }

// StartAll starts those that do not run.
func StartAll(all []*Process) error { return startAll(all) }

// WipeNATS kills all nats-servers, deletes all of their data, and starts them again. It
// returns when they have a leader; streams there are none then.
func (f *Fleet) WipeNATS(ctx context.Context) error {
	KillAll(f.nodes)
	for _, n := range f.nodes {
		if err := os.RemoveAll(f.folder(n)); err != nil {
			return fmt.Errorf("wipe nats: %w", err)
		}
	}
	if err := StartAll(f.nodes); err != nil {
		return fmt.Errorf("wipe nats: %w", err)
	}
	return f.AwaitNATS(ctx)
}

// StreamLeader returns the node that leads a stream, and waits until one does.
func (f *Fleet) StreamLeader(ctx context.Context, name string) (leader *Process, err error) {
	err = poll(ctx, "stream "+name+" has a leader", func(ctx context.Context) error {
		s, err := f.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		if len(f.nodes) == 1 {
			leader = f.nodes[0]
			return nil
		}
		if c := s.CachedInfo().Cluster; c != nil {
			for _, n := range f.nodes {
				if n.Name == c.Leader {
					leader = n
					return nil
				}
			}
		}
		return errNoLeader
	})
	return leader, err
}

// Relieve moves what a node leads, streams and their durable consumers, to a successor.
func (f *Fleet) Relieve(ctx context.Context, node, successor *Process) error {
	names, err := f.StreamNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := poll(ctx, node.Name+" leads nothing of "+name, func(ctx context.Context) error {
			s, err := f.js.Stream(ctx, name)
			if err != nil {
				return err
			}
			if c := s.CachedInfo().Cluster; c != nil && c.Leader == node.Name {
				return f.stepDown(ctx, "STREAM.LEADER.STEPDOWN."+name, successor)
			}
			consumers := s.ListConsumers(ctx)
			for i := range consumers.Info() {
				if i.Config.Durable != "" && i.Cluster != nil && i.Cluster.Leader == node.Name {
					return f.stepDown(ctx, "CONSUMER.LEADER.STEPDOWN."+name+"."+i.Name, successor)
				}
			}
			return consumers.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stepDown asks a leader to go, and returns errSteppedDown when it does.
func (f *Fleet) stepDown(ctx context.Context, what string, successor *Process) error {
	body := `{"placement":{"preferred":"` + successor.Name + `"}}`
	if _, err := f.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+what, []byte(body)); err != nil {
		return err
	}
	return errSteppedDown
}

// errSteppedDown: there is a successor soon.
var errSteppedDown = errors.New("leader steps down")

// StreamNames returns the names of all streams; that of a bucket begins with KV_.
func (f *Fleet) StreamNames(ctx context.Context) ([]string, error) {
	var names []string
	l := f.js.StreamNames(ctx)
	for name := range l.Name() {
		names = append(names, name)
	}
	if err := l.Err(); err != nil {
		return nil, fmt.Errorf("names of streams: %w", err)
	}
	return names, nil
}

// DeleteStream is what an operator does by mistake, as the next is.
func (f *Fleet) DeleteStream(ctx context.Context, name string) error {
	return f.js.DeleteStream(ctx, name)
}

// DeleteConsumer deletes a consumer of a stream.
func (f *Fleet) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	return f.js.DeleteConsumer(ctx, stream, consumer)
}

// Lag returns how many messages wait in all lanes of the uplink. A lane that is missing
// is an error that wraps jetstream.ErrStreamNotFound.
func (f *Fleet) Lag(ctx context.Context) (uint64, error) {
	var sum uint64
	for lane := range f.spec.Lanes {
		n, err := f.waiting(ctx, stream.Up(lane))
		if err != nil {
			return 0, fmt.Errorf("lag of %s: %w", stream.Up(lane), err)
		}
		sum += n
	}
	return sum, nil
}

// waiting asks for a short time only: a stream without a leader does not answer at all.
func (f *Fleet) waiting(ctx context.Context, name string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	s, err := f.js.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}

// DeadMessage is an uplink message that no worker will ever do.
type DeadMessage struct {
	Seq     uint64
	Subject string
	Header  nats.Header
	Data    []byte
}

// Dead returns the dead messages from a sequence on, as the stream's leader has them.
// created tells one incarnation of the stream from the next, which counts from 1 again;
// it is zero when there is no stream.
func (f *Fleet) Dead(ctx context.Context, from uint64) (all []DeadMessage, created time.Time, err error) {
	s, err := f.js.Stream(ctx, stream.Dead)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("dead messages: %w", err)
	}
	info := s.CachedInfo()
	for seq := max(from, info.State.FirstSeq, 1); seq <= info.State.LastSeq; seq++ {
		m, err := f.deadMessage(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // deleted
		}
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("dead message %d: %w", seq, err)
		}
		all = append(all, m)
	}
	return all, info.Created, nil
}

// deadMessage asks the leader; a direct get may be answered by a node that lags.
func (f *Fleet) deadMessage(ctx context.Context, seq uint64) (DeadMessage, error) {
	res, err := f.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream.Dead, fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return DeadMessage{}, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject string `json:"subject"`
			Header  string `json:"hdrs"`
			Data    []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(res.Data, &answer); err != nil {
		return DeadMessage{}, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return DeadMessage{}, jetstream.ErrMsgNotFound
	case answer.Error != nil:
		return DeadMessage{}, answer.Error
	}
	m := DeadMessage{Seq: seq, Subject: answer.Message.Subject, Data: answer.Message.Data}
	if answer.Message.Header == "" {
		return m, nil
	}
	b, err := base64.StdEncoding.DecodeString(answer.Message.Header)
	if err != nil {
		return DeadMessage{}, err
	}
	m.Header, err = nats.DecodeHeadersMsg(b)
	return m, err
}
