package e2e

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
)

// device is one device of a user: a client and the record of what its event channel
// delivered, over all of its lives.
type device struct {
	t    testing.TB
	user string
	name string
	opts client.Options

	c     *client.Client
	stop  context.CancelFunc
	ended chan struct{} // closed when the events of this life are at their end

	mu      sync.Mutex
	changed chan struct{}           // closed and replaced at each event
	got     map[string][]gotMessage // by conversation, in order of arrival
	total   int                     // of got
	logins  []client.Connected      // in order
	others  []client.Event          // everything that is no message and no Stored
	wrong   []string                // violations of P4, seen at once
}

type gotMessage struct {
	seq  int64
	cid  string
	from string
	body string
}

// newDevice connects a device that delivers all of history first.
func newDevice(t testing.TB, user, name string, urls ...string) *device {
	d := &device{t: t, user: user, name: name, changed: make(chan struct{}), got: map[string][]gotMessage{}}
	d.opts = client.Options{URLs: urls, User: user, DeviceID: name, FromStart: true,
		AckTimeout: ackTimeout, MaxBackoff: 2 * time.Second,
		Token: func(context.Context) (string, error) { return token(t, user), nil }}
	d.begin()
	t.Cleanup(d.end)
	return d
}

func (d *device) begin() {
	d.t.Helper()
	c, err := client.New(d.opts)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ran := make(chan struct{}), make(chan struct{})
	d.c, d.stop, d.ended = c, cancel, ended
	go func() {
		defer close(ran)
		if err := c.Run(ctx); err != nil {
			d.note(func() { d.wrong = append(d.wrong, "Run: "+err.Error()) })
		}
	}()
	go func() {
		defer close(ended)
		for ev := range c.Events() {
			d.record(ev)
		}
		<-ran
	}()
}

// end stops the device; it may be called twice.
func (d *device) end() {
	d.stop()
	<-d.ended
}

// reborn stops the device and starts another of its state, on other addresses.
func (d *device) reborn(urls ...string) {
	d.t.Helper()
	d.end()
	st := d.c.State()
	d.opts.State, d.opts.URLs = &st, urls
	d.begin()
}

func (d *device) record(ev client.Event) {
	d.note(func() {
		switch ev := ev.(type) {
		case client.Message:
			list := d.got[ev.ConvID]
			if want := int64(len(list) + 1); ev.Seq != want {
				d.wrong = append(d.wrong, fmt.Sprintf("%s: got seq %d, want %d", ev.ConvID, ev.Seq, want))
			}
			d.got[ev.ConvID] = append(list, gotMessage{ev.Seq, ev.ClientMsgID, ev.From, string(ev.Body)})
			d.total++
		case client.Stored:
		case client.Connected:
			d.logins = append(d.logins, ev)
		default:
			d.others = append(d.others, ev)
		}
	})
}

func (d *device) note(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits for the record to be so.
func (d *device) await(ctx context.Context, what string, ok func() bool) {
	d.t.Helper()
	for {
		d.mu.Lock()
		done, changed := ok(), d.changed
		d.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			d.mu.Lock()
			defer d.mu.Unlock()
			d.t.Fatalf("%s of %s: %s is not so: %d messages, logins %+v, events %+v, wrong %v", d.name, d.user, what, d.total, d.logins, d.others, d.wrong)
		}
	}
}

func (d *device) awaitTotal(ctx context.Context, n int) {
	d.t.Helper()
	d.await(ctx, fmt.Sprintf("%d messages", n), func() bool { return d.total >= n })
}

// awaitLogin waits for login number n (from 1) and returns it.
func (d *device) awaitLogin(ctx context.Context, n int) client.Connected {
	d.t.Helper()
	d.await(ctx, fmt.Sprintf("login %d", n), func() bool { return len(d.logins) >= n })
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.logins[n-1]
}

// events counts what happened besides messages.
func events[T client.Event](d *device, is func(T) bool) (n int) {
	for _, ev := range d.others {
		if e, ok := ev.(T); ok && is(e) {
			n++
		}
	}
	return n
}

func (d *device) isSynced() bool { return events(d, func(client.Synced) bool { return true }) > 0 }

// check reports what the record has against P4.
func (d *device) check() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, w := range d.wrong {
		if i < 10 {
			d.t.Errorf("%s of %s: %s", d.name, d.user, w)
		}
	}
	if n := events(d, func(client.Skipped) bool { return true }); n > 0 {
		d.t.Errorf("%s of %s: skipped %d times", d.name, d.user, n)
	}
}

func (d *device) messages() map[string][]gotMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.got)
}

// send sends and fails the test when that is not possible at all.
func (d *device) send(ctx context.Context, to string, body any) *client.Pending {
	d.t.Helper()
	p, err := d.c.Send(ctx, to, body)
	if err != nil {
		d.t.Fatalf("%s: send: %v", d.user, err)
	}
	return p
}

// stored sends and waits for the ack.
func (d *device) stored(ctx context.Context, to string, body any) client.Result {
	d.t.Helper()
	res, err := d.send(ctx, to, body).Wait(ctx)
	if err != nil {
		d.t.Fatalf("%s: send to %s: %v", d.user, to, err)
	}
	return res
}

// history reads a whole conversation, oldest first.
func (d *device) history(ctx context.Context, conv string) []protocol.Message {
	d.t.Helper()
	var all []protocol.Message
	after := int64(0)
	for {
		page, err := d.c.History(ctx, "", protocol.HistoryRequest{ConvID: conv, AfterSeq: &after, Limit: protocol.MaxPage})
		if err != nil {
			d.t.Fatalf("%s: history of %s: %v", d.user, conv, err)
		}
		all = append(all, page.Messages...)
		if !page.More {
			return all
		}
		after = page.Messages[len(page.Messages)-1].Seq
	}
}

func testContext(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), slowdown*d)
	t.Cleanup(cancel)
	return ctx
}
