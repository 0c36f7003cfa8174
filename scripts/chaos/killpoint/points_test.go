package killpoint

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/worker/messaging"
)

// point is where a worker dies.
type point string

const (
	beforeInsert  point = "before insert"
	afterInsert   point = "after insert"
	beforePublish point = "before publish"
	afterPublish  point = "after publish"
	beforeAck     point = "before ack"
	afterAck      point = "after ack"
)

// The bodies that a mortal worker knows, as they are on the wire.
const (
	fill   = `"fill the lane"`    // is not stored before the whole series is in the lane
	marked = `"here it ends"`     // the worker dies when this one comes to the point
	last   = `"last of a series"` // the end of the series
)

const (
	lookEvery = 5 * time.Millisecond // where there is no signal
	lookFor   = 20 * time.Second
)

// killer knows when to die. The witness asks the server over a connection of its own.
type killer struct {
	at      point
	nc      *nats.Conn // of the worker; set before the worker works
	witness jetstream.JetStream
	marked  atomic.Uint64 // the marked message's place in the lane; 0 while it is not known
}

func newKiller(s spec) (*killer, error) {
	nc, err := nats.Connect(s.NATS)
	if err != nil {
		return nil, fmt.Errorf("connect the witness: %w", err)
	}
	js, err := jetstream.New(nc)
	return &killer{at: s.At, witness: js}, err
}

// reached ends the process at the point it is to die at. What the worker has published
// by then, too early perhaps, is with the server first: a buffer shall not hide it. But
// after a publish it is the return of Deliver alone that says that all is there.
func (k *killer) reached(p point) {
	if p != k.at {
		return
	}
	if p != afterPublish {
		if err := k.nc.FlushTimeout(lookFor); err != nil {
			fail(fmt.Errorf("flush: %w", err))
		}
	}
	die()
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes before anything else is done
}

// fail ends the process in a way that the test tells from a kill.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "kill point:", err)
	os.Exit(1)
}

// until waits until f says that something is so.
func until(ctx context.Context, f func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	for {
		if ok, err := f(ctx); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// filled returns when the whole series is in the lane, so that the marked message has
// others before and behind it in one batch, and notes its place.
func (k *killer) filled(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) (bool, error) {
		all, err := scan(ctx, k.witness, stream.Up(0))
		if err != nil {
			return false, err
		}
		for _, m := range all {
			if bytes.Contains(m.Data, []byte(marked)) {
				k.marked.Store(m.Sequence)
			}
		}
		return len(all) > 0 && bytes.Contains(all[len(all)-1].Data, []byte(last)), nil
	})
}

// mortalStore is a store around whose inserts the process dies.
type mortalStore struct {
	messaging.Store
	k *killer
}

func (s mortalStore) Append(ctx context.Context, msgs []messaging.NewMessage) ([]messaging.Appended, error) {
	has := func(body string) bool {
		return slices.ContainsFunc(msgs, func(m messaging.NewMessage) bool { return string(m.Body) == body })
	}
	if has(fill) {
		if err := s.k.filled(ctx); err != nil {
			return nil, err
		}
	}
	if !has(marked) {
		return s.Store.Append(ctx, msgs)
	}
	s.k.reached(beforeInsert)
	out, err := s.Store.Append(ctx, msgs)
	if err == nil {
		s.k.reached(afterInsert)
	}
	return out, err
}

// mortalDownlink is a downlink around whose publishing the process dies.
type mortalDownlink struct {
	messaging.Deliverer
	k *killer
}

func (d mortalDownlink) Deliver(ctx context.Context, frames []messaging.Frame) error {
	if !slices.ContainsFunc(frames, func(f messaging.Frame) bool { return bytes.Contains(f.Data, []byte(marked)) }) {
		return d.Deliverer.Deliver(ctx, frames)
	}
	d.k.reached(beforePublish)
	err := d.Deliverer.Deliver(ctx, frames)
	if err == nil { // every frame is acknowledged
		d.k.reached(afterPublish)
	}
	return err
}

// dialer dials connections around whose acknowledgements the process dies.
type dialer struct{ k *killer }

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return mortalConn{c, d.k}, nil
}

type mortalConn struct {
	net.Conn
	k *killer
}

// Write lets everything pass up to the marked message's ack: before it, or with it. Then
// it waits until the server has dealt with what passed, and the process dies: the acks of
// a batch are cut apart at this very place.
func (c mortalConn) Write(b []byte) (int, error) {
	seq := c.k.marked.Load()
	begin, end := findAck(b, seq)
	if seq == 0 || end == 0 || c.k.at != beforeAck && c.k.at != afterAck {
		return c.Conn.Write(b)
	}
	pass, gone := begin, seq-1
	if c.k.at == afterAck {
		pass, gone = end, seq
	}
	if _, err := c.Conn.Write(b[:pass]); err != nil {
		fail(fmt.Errorf("write up to the ack: %w", err))
	}
	err := until(context.Background(), func(ctx context.Context) (bool, error) {
		s, err := c.k.witness.Stream(ctx, stream.Up(0))
		return err == nil && s.CachedInfo().State.FirstSeq > gone, err
	})
	if err != nil {
		fail(fmt.Errorf("wait for the acks: %w", err))
	}
	die()
	return len(b), nil
}

// ackOp is an ack as nats.go writes it: whole, in one Write.
var ackOp = regexp.MustCompile(`PUB \$JS\.ACK\.(\S+) 4\r\n\+ACK\r\n`)

// findAck returns where in b the ack of the lane's message seq is; end is 0 when it is not.
func findAck(b []byte, seq uint64) (begin, end int) {
	for _, at := range ackOp.FindAllSubmatchIndex(b, -1) {
		// <stream>.<consumer>.<deliveries>.<stream seq>.…, or the same behind <domain>.<account>.
		part := strings.Split(string(b[at[2]:at[3]]), ".")
		i := 3
		if len(part) > 7 {
			i = 5
		}
		if i < len(part) && part[i] == strconv.FormatUint(seq, 10) {
			return at[0], at[1]
		}
	}
	return 0, 0
}
