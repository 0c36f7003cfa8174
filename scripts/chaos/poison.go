package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/chaos/history"
	"github.com/wirepost/wirepost/scripts/chaos/mutant"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// poisonPart is how many poisons there are for each send.
	poisonPart = 0.01
	// poisonHeader names a poison; a dead message keeps it.
	poisonHeader = "poison"
	// deadEvery is how often the dead stream is looked at.
	deadEvery = 300 * time.Millisecond
)

// poison puts into the uplink what can never succeed, and looks for it in the dead stream.
type poison struct {
	f     *fleet.Fleet
	h     *history.Writer
	users []string
	rate  float64 // a second
	rng   *rand.Rand
	round int

	mu      sync.Mutex
	n       int
	next    uint64    // of the dead stream
	created time.Time // of its incarnation
}

// keep poisons until enough is closed; the last one is put in all the same, for it is on
// record.
func (p *poison) keep(ctx context.Context, enough <-chan struct{}) {
	for {
		pause := time.Duration(p.rng.ExpFloat64() / p.rate * float64(time.Second))
		select {
		case <-enough:
			return
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		// No event headers: a frame that nobody can read.
		m := &nats.Msg{Header: nats.Header{}, Data: []byte("poison")}
		p.put(ctx, p.users[p.rng.IntN(len(p.users))], m, false)
	}
}

// kill puts a frame into the uplink that kills every worker that works it.
func (p *poison) kill(ctx context.Context, user string) error {
	ev := envelope.Event{Type: envelope.Frame, Edge: "chaos", Conn: "poison", N: 1, Time: time.Now()}
	return p.put(ctx, user, &nats.Msg{Header: ev.Header(), Data: []byte(mutant.KillerPhrase)}, true)
}

// put publishes until JetStream has it, which is what counts: an attempt whose answer was
// lost may be there as well.
func (p *poison) put(ctx context.Context, user string, m *nats.Msg, kill bool) error {
	id, err := userid.Parse(user)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.n++
	cid := fmt.Sprintf("poison-%d-%d", p.round, p.n)
	p.mu.Unlock()
	m.Subject = subject.Up(subject.Lane(id, lanes), id)
	m.Header.Set(poisonHeader, cid)
	p.h.Add(history.Record{Kind: history.Poison, CID: cid, User: user, Kill: kill})
	_, js := p.f.NATS()
	for {
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := js.PublishMsg(actx, m, jetstream.WithMsgID(cid))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * ms) // there is nobody who would tell when it works again
	}
}

// skip begins behind what is dead already.
func (p *poison) skip(ctx context.Context) {
	if all, created, err := p.f.Dead(ctx, 0); err == nil {
		p.created, p.next = created, 1
		if n := len(all); n > 0 {
			p.next = all[n-1].Seq + 1
		}
	}
}

// watch writes down what comes into the dead stream until ctx ends.
func (p *poison) watch(ctx context.Context) {
	for {
		p.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(deadEvery):
		}
	}
}

// look writes down what is new in the dead stream. While NATS is away there is nothing.
func (p *poison) look(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, created, err := p.f.Dead(lctx, p.next)
	if err != nil {
		return
	}
	if !created.Equal(p.created) {
		p.created = created
		if p.next > 1 { // another incarnation, which counts from 1 again
			p.next = 1
			if all, _, err = p.f.Dead(lctx, p.next); err != nil {
				return
			}
		}
	}
	for _, m := range all {
		p.next = m.Seq + 1
		cid := m.Header.Get(poisonHeader)
		if cid == "" {
			cid = "no poison: " + m.Subject
		}
		p.h.Add(history.Record{Kind: history.Dead, CID: cid, Note: reasonOf(m.Header)})
	}
}

func reasonOf(h nats.Header) string {
	ev, err := envelope.Parse(h)
	if err != nil && len(h["ce-reason"]) > 0 {
		return h["ce-reason"][0]
	}
	return ev.Reason
}
