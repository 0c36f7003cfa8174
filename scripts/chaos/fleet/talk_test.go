package fleet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/client"
)

// pair is two users who talk, each over any edge.
type pair struct {
	ann  *client.Client
	got  chan client.Message // what bob received; written by bob's reader
	said int
}

// newPair connects ann and bob until the test's end.
func newPair(t *testing.T, f *fleet.Fleet) *pair {
	t.Helper()
	p := &pair{got: make(chan client.Message, 1000)}
	p.ann = connect(t, f, "ann", func(client.Event) {})
	connect(t, f, "bob", func(ev client.Event) {
		if m, ok := ev.(client.Message); ok {
			p.got <- m
		}
	})
	return p
}

func connect(t *testing.T, f *fleet.Fleet, user string, see func(client.Event)) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URLs: f.URLs(), User: user, FromStart: true,
		AckTimeout: 2 * time.Second, MaxBackoff: time.Second,
		Token: func(context.Context) (string, error) {
			return devkeys.Token([]byte(f.Secret()), user, time.Hour)
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran, read := make(chan error, 1), make(chan struct{})
	go func() { ran <- c.Run(ctx) }()
	go func() {
		defer close(read)
		for ev := range c.Events() {
			see(ev)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		if err := <-ran; err != nil {
			t.Errorf("%s: %v", user, err)
		}
	})
	return c
}

// talk sends a message and waits until it is stored and received.
func (p *pair) talk(t *testing.T, ctx context.Context) {
	t.Helper()
	p.said++
	pending, err := p.ann.Send(ctx, "bob", map[string]any{"text": fmt.Sprint("number ", p.said)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Wait(ctx); err != nil {
		t.Fatalf("message %d is not stored: %v", p.said, err)
	}
	select {
	case m := <-p.got:
		if m.ClientMsgID != pending.ClientMsgID {
			t.Fatalf("bob got %s as number %d", m.Body, p.said)
		}
	case <-ctx.Done():
		t.Fatalf("message %d did not reach bob", p.said)
	}
}
