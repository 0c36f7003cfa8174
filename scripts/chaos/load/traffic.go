package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Parts of all sends that are something else than a new message.
const (
	partAgain = 0.01  // repeated after the ack, byte for byte; half as many with another body
	partWrong = 0.005 // to a receiver that no user can be
	partBurst = 0.05  // followed by burst more to the same receiver, without a pause
	burst     = 12
)

const (
	peers  = 6   // to so many others a user talks at most
	window = 100 // sends of a device that wait, at most
)

// keepSending is the sender of a device: an open loop with random pauses, as long as its
// window has room.
func (l *Load) keepSending(d *device, rate float64) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	n := 0
	for {
		var in intent
		more := 0
		select {
		case <-l.ctx.Done():
			return
		case in = <-d.wants:
		case <-timer.C:
			n++
			in = l.newSend(d, n)
			if d.rng.Float64() < partBurst {
				more = burst
			}
			pause := d.rng.ExpFloat64() / rate * (1 + partBurst*burst)
			timer.Reset(time.Duration(pause * float64(time.Second)))
		}
		for {
			if !l.awaitRoom(d) || !l.send(d, in) {
				return
			}
			if more--; more < 0 {
				break
			}
			n++
			to := in.to
			in = l.newSend(d, n)
			in.to = to
		}
	}
}

func (l *Load) send(d *device, in intent) bool {
	if err := d.send(context.Background(), in); err != nil {
		l.fail(err)
		return false
	}
	l.sent.Add(1)
	return true
}

// awaitRoom waits until the device's window has room; false: it is over.
func (l *Load) awaitRoom(d *device) bool {
	return d.await(l.ctx, func() bool { return len(d.open) < window }) == nil
}

// newSend is a new message of a device to one of its user's peers, the first of them more
// often than the others.
func (l *Load) newSend(d *device, n int) intent {
	k := min(peers, len(l.users)-1)
	hop := 1 + min(d.rng.IntN(k), d.rng.IntN(k))
	if d.rng.IntN(2) == 0 {
		hop = len(l.users) - hop
	}
	in := intent{cid: uuid.NewString(), to: l.users[(d.index+hop)%len(l.users)]}
	if d.rng.Float64() < partWrong {
		in.to = strings.Repeat("x", 129)
	}
	in.body = json.RawMessage(fmt.Sprintf(`{"text":%q,"n":%d,"id":%q}`, d.user, n, in.cid[:13]))
	return in
}

// acked may want a repetition of a send.
func (l *Load) acked(d *device, was intent) {
	l.acks.Add(1)
	if was.cid == "" || was.again || was.reuse {
		return
	}
	switch p := d.dice.Float64(); {
	case p < l.o.Again:
		was.again = true
	case p < 1.5*l.o.Again:
		was.reuse, was.body = true, json.RawMessage(`{"text":"another"}`)
	default:
		return
	}
	select {
	case d.wants <- was:
	default:
	}
}

// keepDisturbing cuts, restarts and crashes a device at random.
func (l *Load) keepDisturbing(d *device, rng *rand.Rand) {
	for {
		timer := time.NewTimer(time.Duration(rng.ExpFloat64() * float64(l.o.Disturb)))
		select {
		case <-l.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		var err error
		switch rng.IntN(4) {
		case 0:
			err = d.reborn(false)
		case 1:
			err = d.reborn(true)
		default:
			d.cut()
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}
