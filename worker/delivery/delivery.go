// Package delivery brings frames to users over NATS: the worker's end of the downlink.
// It implements messaging.Deliverer.
//
// It never reads a frame, and it knows nothing of who is connected where: it publishes
// to the user's subject, JetStream stores and republishes, and whoever subscribes sees it.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/worker/messaging"
)

const (
	// window is how many frames of one call are published before their acknowledgements
	// are waited for. nats-server queues 10,000 messages a stream.
	window = 1024
	// ackWait is how long the acknowledgements of one window may take.
	ackWait = 3 * time.Second
	// linkPoll is how soon a reconnect ends the wait for acknowledgements.
	linkPoll = 200 * time.Millisecond
	// tryFor is how long one call of Deliver tries; then its caller decides.
	tryFor = 6 * time.Second

	retryLeast = 50 * time.Millisecond
	retryMost  = 250 * time.Millisecond
)

// errNoAck is returned when JetStream did not acknowledge a frame in time.
var errNoAck = errors.New("no acknowledgement in time")

// Downlink publishes frames. Its methods may be called concurrently.
type Downlink struct {
	nc      *nats.Conn
	shards  int
	missing func(what string)
	log     *slog.Logger
	m       *metrics
	inbox   string // acknowledgements come to <inbox><call>.<index>, both base 36
	sub     *nats.Subscription

	mu    sync.Mutex
	calls map[string]*flight // by call, while its acknowledgements are waited for
	next  uint64
}

// New returns a Downlink over a connection that others may use too; shards is the
// system's number of downlink shards. missing is told when a stream is not there
// (streams.Keeper.Missing); it must not block. Close ends it.
func New(nc *nats.Conn, shards int, missing func(what string), log *slog.Logger, reg prometheus.Registerer) (*Downlink, error) {
	d := &Downlink{nc: nc, shards: shards, missing: missing, log: log, m: newMetrics(reg),
		inbox: nc.NewInbox() + ".", calls: map[string]*flight{}}
	sub, err := nc.Subscribe(d.inbox+"*.*", d.acknowledged)
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	d.sub = sub
	return d, nil
}

// Close ends the subscription to acknowledgements. No Deliver may be under way.
func (d *Downlink) Close() error { return d.sub.Unsubscribe() }

// Deliver publishes the frames in order and returns nil when JetStream has acknowledged
// all of them. When one fails, that one and all behind it are published again in order,
// for some seconds at most: a frame may be stored twice, and clients drop the second.
// Frames of two calls are in no order.
func (d *Downlink) Deliver(ctx context.Context, frames []messaging.Frame) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	pause := retryLeast
	for len(frames) > 0 {
		n, err := d.fly(ctx, frames[:min(len(frames), window)])
		frames = frames[n:]
		d.m.frames.Add(float64(n))
		if n > 0 {
			pause = retryLeast
		}
		if err == nil {
			continue
		}
		if errors.Is(err, nats.ErrMaxPayload) {
			d.m.tooLarge.Inc()
			d.log.Error("frame is larger than nats takes, clients must read it from history", "user", frames[0].To, "bytes", len(frames[0].Data))
			frames = frames[1:]
			continue
		}
		d.m.retries.Inc()
		if errors.Is(err, nats.ErrNoResponders) {
			d.missing("downlink stream of shard " + strconv.Itoa(subject.Shard(frames[0].To, d.shards)))
		}
		if !wait(ctx, pause) {
			return fmt.Errorf("deliver: %w", err)
		}
		pause = min(2*pause, retryMost)
	}
	return nil
}

// fly publishes frames and returns how many of them, from the first on, are
// acknowledged; err belongs to the one behind them.
func (d *Downlink) fly(ctx context.Context, frames []messaging.Frame) (n int, err error) {
	f := newFlight(len(frames))
	call := d.depart(f)
	defer d.arrive(call)
	reply := d.inbox + call + "."
	for i := range frames {
		if err := d.publish(&frames[i], reply+strconv.FormatInt(int64(i), 36)); err != nil {
			f.end(i, err)
			break
		}
	}
	d.await(ctx, f)
	return f.result()
}

// await returns when the flight is over, or when what has not come will not come.
func (d *Downlink) await(ctx context.Context, f *flight) {
	links := d.nc.Stats().Reconnects
	look := time.NewTicker(linkPoll)
	defer look.Stop()
	for began := time.Now(); time.Since(began) < ackWait; {
		select {
		case <-f.done:
			return
		case <-ctx.Done():
			return
		case <-look.C:
			if d.nc.Stats().Reconnects != links {
				return // answers to the old connection are lost
			}
		}
	}
}

func (d *Downlink) publish(f *messaging.Frame, reply string) error {
	to := subject.Down(subject.Shard(f.To, d.shards), f.To)
	if f.Conn == "" && f.Echo == "" && f.Trace == "" { // fast path
		return d.nc.PublishRequest(to, reply, f.Data)
	}
	return d.nc.PublishMsg(&nats.Msg{Subject: to, Reply: reply, Header: header(f), Data: f.Data})
}

// Reply publishes a frame that may be lost: it is not stored, and seen by the edge that
// holds the connection now. An error means that it was not published.
func (d *Downlink) Reply(f messaging.Frame) error {
	msg := &nats.Msg{Subject: subject.Live(subject.Shard(f.To, d.shards), f.To), Header: header(&f), Data: f.Data}
	if err := d.nc.PublishMsg(msg); err != nil {
		return fmt.Errorf("publish reply: %w", err)
	}
	d.m.replies.Inc()
	return nil
}

// header returns the frame's headers.
func header(f *messaging.Frame) nats.Header {
	h := make(nats.Header, 1)
	if f.Conn != "" {
		h[envelope.Target] = []string{f.Conn}
	}
	if f.Echo != "" {
		h[envelope.Echo] = []string{f.Echo}
	}
	if f.Trace != "" {
		h[envelope.TraceParent] = []string{f.Trace}
	}
	return h
}

func (d *Downlink) depart(f *flight) (call string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	call = strconv.FormatUint(d.next, 36)
	d.calls[call] = f
	return call
}

func (d *Downlink) arrive(call string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.calls, call)
}

// acknowledged runs on the subscription's goroutine.
func (d *Downlink) acknowledged(m *nats.Msg) {
	call, index, _ := strings.Cut(m.Subject[len(d.inbox):], ".")
	d.mu.Lock()
	f := d.calls[call]
	d.mu.Unlock()
	if f == nil {
		return // of an attempt that was given up
	}
	i, err := strconv.ParseInt(index, 36, 32)
	if err != nil || i < 0 {
		return
	}
	f.ack(int(i), pubAckError(m))
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
