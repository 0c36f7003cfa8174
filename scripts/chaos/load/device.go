package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/shared/client"
)

const (
	// snapshotEvery is how old the state is at most that a crash leaves behind.
	snapshotEvery = 2 * time.Second
	// slowBuffer is the receive buffer of a device that is to feel that it does not read, in bytes.
	slowBuffer = 64 << 10
)

// device is one client of one user, over all of its lives.
type device struct {
	l     *Load
	index int // of the user
	user  string
	id    string // in the history; unique
	opts  client.Options
	slow  bool        // it can be told not to read
	rng   *rand.Rand  // of its sender
	dice  *rand.Rand  // of its events' goroutine
	wants chan intent // repetitions; written by the events' goroutine, read by the sender; what does not fit is forgotten

	sending sync.Mutex // one send at a time: their order is that of the records

	// lives is held for reading while a send is handed to the client, and for writing
	// while one life ends and the next begins.
	lives sync.RWMutex
	life  int
	c     *client.Client
	stop  context.CancelFunc
	ended chan struct{} // closed when the events of this life are at their end
	crash atomic.Bool   // this life ends without another word
	fresh bool          // this life began with what comes next

	conns atomic.Int64 // of all lives

	mu      sync.Mutex
	taps    map[*tap]bool
	open    map[string]intent // sends that are not resolved, by cid
	seen    map[string]int64  // conversation → last seq that came out of the event channel
	old     *client.State     // what a crash leaves behind, from up to snapshotEvery ago; nil: nothing yet
	deaf    chan struct{}     // not nil: events are not read until it is closed
	changed chan struct{}     // closed and replaced when open or seen changes
	synced  bool              // the first life has caught up
	gaveUp  error             // Run returned it
}

func (l *Load) newDevice(index int, name string) *device {
	user, n := l.users[index], uint64(len(l.devices))
	d := &device{l: l, index: index, user: user, id: user + "|" + name, taps: map[*tap]bool{}, open: map[string]intent{},
		seen: map[string]int64{}, changed: make(chan struct{}), wants: make(chan intent, 64),
		rng: rand.New(rand.NewPCG(l.o.Seed, n)), dice: rand.New(rand.NewPCG(l.o.Seed+1, n))}
	urls := l.o.URLs
	if l.o.Place != nil {
		urls = l.o.Place(index, urls)
	}
	d.opts = client.Options{URLs: urls, User: user, DeviceID: name, FromStart: true,
		NetDial: d.dial, Token: func(context.Context) (string, error) { return l.o.Token(user) }}
	return d
}

// dial connects to an edge through a tap.
func (d *device) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := nc.(*net.TCPConn); ok && d.slow {
		_ = tcp.SetReadBuffer(slowBuffer)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	who := history.Record{Dev: d.id, Life: d.life, Conn: fmt.Sprintf("%s#%d", d.id, d.conns.Add(1))}
	t := newTap(nc, d.l.o.History, who, d.user)
	clear(d.taps) // a client has one connection at a time
	d.taps[t] = true
	return t, nil
}

// cut ends the device's connection without a word.
func (d *device) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t := range d.taps {
		_ = t.Close()
	}
}

// begin starts a life with the state in d.opts. d.lives is held for writing, or nobody
// else has the device yet.
func (d *device) begin() error {
	c, err := client.New(d.opts)
	if err != nil {
		return fmt.Errorf("begin %s: %w", d.id, err)
	}
	d.mu.Lock() // a lock for readers; nobody else writes
	d.life++
	d.crash.Store(false)
	r := history.Record{Kind: history.Begin, User: d.user, Dev: d.id, Life: d.life, Slow: d.slow}
	st := d.opts.State
	d.fresh = !d.opts.FromStart && (st == nil || st.Cursors == nil)
	r.Fresh = d.fresh
	was := d.open
	d.seen, d.open = map[string]int64{}, map[string]intent{}
	if st != nil {
		r.Cursors = maps.Clone(st.Cursors)
		maps.Copy(d.seen, st.Cursors)
		for _, o := range st.Outbox {
			in := intent{since: time.Now()}
			if old, known := was[o.ClientMsgID]; known {
				in.since = old.since
			}
			d.open[o.ClientMsgID] = in
		}
	}
	d.old = st
	d.mu.Unlock()
	d.l.o.History.Add(r)
	ctx, cancel := context.WithCancel(context.Background())
	ended, ran := make(chan struct{}), make(chan struct{})
	d.c, d.stop, d.ended = c, cancel, ended
	life := d.life
	go func() {
		defer close(ran)
		if err := c.Run(ctx); err != nil {
			d.note(func() { d.gaveUp = err })
		}
	}()
	go func() {
		defer close(ended)
		d.follow(c, life)
		<-ran
	}()
	return nil
}

// hear lets a deaf device read again. d.mu is held.
func (d *device) hear() {
	if d.deaf != nil {
		close(d.deaf)
		d.deaf = nil
	}
}

// end stops the life; crash: as a process that is killed.
func (d *device) end(crash bool) {
	d.crash.Store(crash)
	d.mu.Lock()
	d.hear()
	d.mu.Unlock()
	d.stop()
	<-d.ended
	r := history.Record{Kind: history.End, Dev: d.id, Life: d.life}
	if crash {
		r.Code = 1
	}
	d.l.o.History.Add(r)
}

// reborn ends the life and begins another, with its last state or, after a crash, an
// older one.
func (d *device) reborn(crash bool) (err error) {
	d.lives.Lock()
	defer d.lives.Unlock()
	if crash {
		d.end(true)
		d.mu.Lock()
		st := d.old
		d.mu.Unlock()
		if d.opts.State, err = written(st); err != nil {
			return err
		}
		return d.begin()
	}
	d.end(false)
	return d.resume()
}

// resume begins a life with the state that the one before ended with.
func (d *device) resume() error {
	st := d.c.State()
	var err error
	if d.opts.State, err = written(&st); err != nil {
		return err
	}
	return d.begin()
}

// written is a state as it comes back from a disk.
func written(st *client.State) (*client.State, error) {
	if st == nil {
		return nil, nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("write a state: %w", err)
	}
	back := new(client.State)
	return back, json.Unmarshal(b, back)
}

// follow writes down the events of one life until there are no more.
func (d *device) follow(c *client.Client, life int) {
	last := time.Now()
	for ev := range c.Events() {
		if d.crash.Load() {
			continue // its end is near, and nobody sees this any more
		}
		d.record(ev, life)
		if time.Since(last) > snapshotEvery {
			st := c.State()
			last = time.Now()
			d.mu.Lock()
			d.old = &st
			d.mu.Unlock()
		}
		d.mu.Lock()
		deaf := d.deaf
		d.mu.Unlock()
		if deaf != nil {
			<-deaf
		}
	}
}

func (d *device) record(ev client.Event, life int) {
	r := history.Record{Dev: d.id, Life: life}
	switch ev := ev.(type) {
	case client.Message:
		r.Kind = history.Event
		r.Conv, r.Seq, r.CID, r.From, r.To, r.Body = ev.ConvID, ev.Seq, ev.ClientMsgID, ev.From, ev.To, Digest(ev.Body)
		d.l.o.History.Add(r)
		d.note(func() { d.seen[ev.ConvID] = ev.Seq })
	case client.Stored:
		r.Kind, r.CID, r.Conv, r.Seq = history.Ack, ev.ClientMsgID, ev.ConvID, ev.Seq
		d.l.o.History.Add(r)
		var was intent
		d.note(func() { was = d.open[ev.ClientMsgID]; delete(d.open, ev.ClientMsgID) })
		d.l.acked(d, was)
	case client.Refused:
		r.Kind, r.CID = history.Refusal, ev.ClientMsgID
		var no *client.RefusedError
		if errors.As(ev.Err, &no) {
			r.Code = no.Code
		}
		d.l.o.History.Add(r)
		d.note(func() { delete(d.open, ev.ClientMsgID) })
	case client.Skipped:
		r.Kind, r.Conv, r.Seq, r.Upto = history.Skipped, ev.ConvID, ev.From, ev.To
		d.l.o.History.Add(r)
	case client.Synced:
		r.Kind = history.Synced
		d.l.o.History.Add(r)
		d.note(func() { d.synced = true })
	}
}

func (d *device) note(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until ok, which is called with d.mu held.
func (d *device) await(ctx context.Context, ok func() bool) error {
	for {
		d.mu.Lock()
		done, changed, gaveUp := ok(), d.changed, d.gaveUp
		d.mu.Unlock()
		switch {
		case done:
			return nil
		case gaveUp != nil:
			return fmt.Errorf("%s: the client gave up: %w", d.id, gaveUp)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", d.id, ctx.Err())
		}
	}
}

// unresolved is how many sends of the device wait.
func (d *device) unresolved() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// intent is a send that somebody wants of a device.
type intent struct {
	cid, to string
	body    json.RawMessage
	again   bool // it was sent and acknowledged before
	reuse   bool // its cid was, with another body
	since   time.Time
}

// send hands one send to the client.
func (d *device) send(ctx context.Context, in intent) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	d.lives.RLock()
	defer d.lives.RUnlock()
	d.mu.Lock()
	if _, waits := d.open[in.cid]; waits { // in an older state, and under way again by itself
		d.mu.Unlock()
		return nil
	}
	in.since = time.Now()
	d.open[in.cid] = in
	d.mu.Unlock()
	d.l.o.History.Add(history.Record{Kind: history.Send, User: d.user, Dev: d.id, Life: d.life,
		CID: in.cid, To: in.to, Body: Digest(in.body), Again: in.again, Reuse: in.reuse})
	if _, err := d.c.Send(ctx, in.to, in.body, client.WithClientMsgID(in.cid)); err != nil {
		return fmt.Errorf("send of %s: %w", d.id, err)
	}
	return nil
}
