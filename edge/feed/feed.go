package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/userid"
)

// ErrNotSubscribed is returned by Request while the connection has not all subscriptions
// yet, and when it was another one in the end: what was asked may have overtaken them.
var ErrNotSubscribed = errors.New("subscriptions are not renewed yet")

// Feed is a connection to NATS with subscriptions of users. Its life is New, Connect,
// Close. Batches, Subscribe, Unsubscribe and Renew are the owner's, one goroutine's;
// Request may be called by any.
type Feed struct {
	renewed func()
	batches chan *Batch // written by the wire that is read, read by the owner; never closed
	nc      *nats.Conn

	open atomic.Pointer[wire] // has all subscriptions; nil: none has

	mu    sync.Mutex // guards ready, and open's changes
	ready *wire      // accepts subscriptions; nil before the first one
}

// New returns a feed that is not connected. renewed is called, on a goroutine of the
// connection, each time there is a new one that has no subscriptions yet, the first one
// included: the owner then calls Renew. It must not block.
func New(renewed func()) *Feed {
	return &Feed{renewed: renewed, batches: make(chan *Batch, batches)}
}

// Connect connects. dial must put wrap around what it connects to, inside of TLS, see
// natsconn.Options.Wrap.
func (f *Feed) Connect(dial func(wrap func(net.Conn) net.Conn) (*nats.Conn, error)) error {
	nc, err := dial(f.wrap)
	f.nc = nc
	return err
}

// Close closes the connection. No batch comes any more; those that came stay valid.
func (f *Feed) Close() { f.nc.Close() }

// Batches are where frames come. Each batch must be released.
func (f *Feed) Batches() <-chan *Batch { return f.batches }

// Subscribe asks for the frames of a user. It waits for the network only where much was
// asked before. Without a Request nothing makes it leave at once, but it does in seconds.
// While there is no connection it does nothing: the next Renew is to do it.
func (f *Feed) Subscribe(shard int, user userid.ID) {
	if w := f.open.Load(); w != nil {
		w.subscribe(shard, user)
	}
}

// Unsubscribe ends it, like Subscribe; frames may come for some time.
func (f *Feed) Unsubscribe(user userid.ID) {
	if w := f.open.Load(); w != nil {
		w.unsubscribe(user)
	}
}

// Renew subscribes everybody, by shard and user, on a new connection.
func (f *Feed) Renew(all iter.Seq2[int, userid.ID]) {
	f.mu.Lock()
	w := f.ready
	f.mu.Unlock()
	if w == nil {
		return
	}
	for shard, user := range all {
		w.subscribe(shard, user)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready == w { // else another call of Renew is due
		f.open.Store(w)
	}
}

// Request publishes an empty message and returns the data of its answer. The server sees it
// behind every subscription that was made before, on the connection that has them.
func (f *Feed) Request(ctx context.Context, subj string) ([]byte, error) {
	w := f.open.Load()
	if w == nil {
		return nil, ErrNotSubscribed
	}
	answer, err := f.nc.RequestWithContext(ctx, subj, nil)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if f.open.Load() != w { // it may have been the next connection's first words
		return nil, ErrNotSubscribed
	}
	return answer.Data, nil
}

// wrap is put around each new connection.
func (f *Feed) wrap(c net.Conn) net.Conn { return newWire(f, c) }

// greeted is told that the server has taken w's CONNECT, before nats.go knows: no Request
// leaves on w before.
func (f *Feed) greeted(w *wire) {
	f.mu.Lock()
	f.ready = w
	f.open.Store(nil)
	f.mu.Unlock()
	f.renewed()
}
