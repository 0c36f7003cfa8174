package gen

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// fanning is the job Fan: at fixed times a message goes to all connections, by the first
// of them, or over NATS to all users of an edge.
type fanning struct {
	g          *Generator
	n          int // connections
	gap        time.Duration
	due, end   time.Duration
	began      time.Duration
	want, seen int
	last       time.Duration
	publish    func() error
}

func (g *Generator) fan(c Command) {
	publish, err := g.publisher(c.N)
	if err != nil {
		g.fail(err)
		return
	}
	now := g.client.Now()
	f := &fanning{g: g, n: c.N, gap: time.Duration(float64(time.Second) / c.Rate), due: now, began: now, end: now + c.For, publish: publish}
	g.job = f
	f.woken()
}

func (f *fanning) woken() {
	now := f.g.client.Now()
	switch {
	case now >= f.end+f.g.opt.patience:
		f.g.fail(fmt.Errorf("%w: %d of %d deliveries within %v", errSlow, f.want-f.seen, f.want, f.g.opt.patience))
		return
	case f.due <= now && f.due < f.end:
		f.want += f.n
		f.due += f.gap
		if err := f.publish(); err != nil {
			f.g.fail(err)
			return
		}
	}
	if f.due < f.end {
		f.g.client.WakeAt(f.due)
		return
	}
	f.finish()
	f.g.client.WakeAt(f.end + f.g.opt.patience)
}

func (f *fanning) message(_ uint32, b []byte) {
	f.seen += f.g.d.deliveries(b)
	f.last = f.g.client.Now()
	f.finish()
}

func (f *fanning) finish() {
	if f.due >= f.end && f.seen >= f.want && f.g.job == f {
		f.g.done(Result{Count: f.seen, Took: f.last - f.began})
	}
}

// publisher returns what brings one message to each of the first n connections.
func (g *Generator) publisher(n int) (func() error, error) {
	if g.d.publish != nil {
		return func() error { return g.conns[0].Text(g.d.publish) }, nil
	}
	js, err := g.jetStream()
	if err != nil {
		return nil, err
	}
	var subjects []string
	for u := range n / int(g.d.devices) {
		id, err := userid.Parse(User(u))
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, subject.Down(subject.Shard(id, stream.DefaultShards), id))
	}
	// A frame of an application's service: the least that a worker may publish.
	frame := []byte(`{"msgType":3,"bizType":1000,"msgBody":"` + strings.Repeat("x", size) + `"}`)
	return func() error {
		for _, s := range subjects {
			if _, err := js.PublishAsync(s, frame); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		return nil
	}, nil
}

// jetStream connects to NATS once; the end of the process closes the connection.
func (g *Generator) jetStream() (jetstream.JetStream, error) {
	if g.js != nil {
		return g.js, nil
	}
	nc, err := nats.Connect(g.opt.NATS)
	if err != nil {
		return nil, fmt.Errorf("connect to nats: %w", err)
	}
	g.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<16))
	return g.js, err
}
