package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// What somebody who directs the users may ask of them, with or without traffic of their own.

// Send lets a user's first device send n messages to another user, one behind the other.
// It returns when the client has taken them.
func (l *Load) Send(ctx context.Context, from, to string, n int) error {
	d := l.devicesOf(from)[0]
	for i := range n {
		cid := uuid.NewString()
		body := json.RawMessage(fmt.Sprintf(`{"directed":%d,"id":%q}`, i, cid[:13]))
		if err := d.send(ctx, intent{cid: cid, to: to, body: body}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Load) devicesOf(users ...string) (found []*device) {
	for _, d := range l.devices {
		if slices.Contains(users, d.user) {
			found = append(found, d)
		}
	}
	return found
}

// Cut ends every connection of some users at once, without a word.
func (l *Load) Cut(users ...string) {
	for _, d := range l.devicesOf(users...) {
		d.cut()
	}
}

// CutAll ends every connection at once.
func (l *Load) CutAll() { l.Cut(l.users...) }

// Sleep stops the clients of some users; they do not send meanwhile.
func (l *Load) Sleep(users ...string) {
	for _, d := range l.devicesOf(users...) {
		d.lives.Lock()
		d.end(false)
	}
}

// Wake starts clients that sleep, with the state that they ended with.
func (l *Load) Wake(users ...string) error {
	for _, d := range l.devicesOf(users...) {
		err := d.resume()
		d.lives.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// Flood tells one device that can be slow not to read, lets another user send n messages
// of size bytes to it, and returns what lets it read again. It returns when the sender's
// client has taken them all. Which device and which user is rng's choice.
func (l *Load) Flood(ctx context.Context, rng *rand.Rand, n, size int) (hear func(), err error) {
	var slow, others []*device
	for _, d := range l.devices {
		if d.slow {
			slow = append(slow, d)
		}
	}
	if len(slow) == 0 {
		return nil, errors.New("flood: no device can be slow")
	}
	deaf := slow[rng.IntN(len(slow))]
	for _, d := range l.devices {
		if !d.slow && d.user != deaf.user {
			others = append(others, d)
		}
	}
	if len(others) == 0 {
		return nil, errors.New("flood: nobody is there to send")
	}
	from := others[rng.IntN(len(others))]
	deaf.mu.Lock()
	deaf.hear()
	deaf.deaf = make(chan struct{})
	deaf.mu.Unlock()
	hear = func() {
		deaf.mu.Lock()
		defer deaf.mu.Unlock()
		deaf.hear()
	}
	for i := range n {
		cid := uuid.NewString()
		body := fmt.Sprintf(`{"n":%d,"id":%q,"pad":%q}`, i, cid, strings.Repeat("p", max(0, size-80)))
		if err := from.send(ctx, intent{cid: cid, to: deaf.user, body: json.RawMessage(body)}); err != nil {
			hear()
			return nil, err
		}
	}
	return hear, nil
}
