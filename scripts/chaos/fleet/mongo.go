package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// errNotServing is returned when a member of the store is neither primary nor secondary.
var errNotServing = errors.New("member is neither primary nor secondary")

// hello is what a member tells of itself.
type hello struct {
	Writable  bool          `bson:"isWritablePrimary"`
	Secondary bool          `bson:"secondary"`
	Election  bson.ObjectID `bson:"electionId"` // grows with each election
}

func ask(ctx context.Context, c *mongo.Client) (h hello, err error) {
	err = c.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&h)
	return h, err
}

// serves returns nil when a member takes part.
func serves(ctx context.Context, c *mongo.Client) error {
	h, err := ask(ctx, c)
	if err == nil && !h.Writable && !h.Secondary {
		err = errNotServing
	}
	return err
}

func hasCode(err error, code int) bool {
	var se mongo.ServerError
	return errors.As(err, &se) && se.HasErrorCode(code)
}

// Primary returns the process of the store that takes writes, and waits until there is
// one. Of two that believe so, it is the one that was elected last. With FerretDB it is
// FerretDB.
func (f *Fleet) Primary(ctx context.Context) (p *Process, err error) {
	err = poll(ctx, "the store has a primary", func(ctx context.Context) error {
		p, err = f.primaryNow(ctx)
		return err
	})
	return p, err
}

// primaryNow asks all members at once; those that are paused do not answer.
func (f *Fleet) primaryNow(ctx context.Context) (*Process, error) {
	answers := make([]hello, len(f.members))
	var wg sync.WaitGroup
	for i, c := range f.members {
		if f.store[i].Running() && !f.store[i].Paused() {
			wg.Go(func() { answers[i], _ = ask(ctx, c) }) // no answer is no primary
		}
	}
	wg.Wait()
	best := -1
	for i, a := range answers {
		if a.Writable && (best < 0 || string(a.Election[:]) > string(answers[best].Election[:])) {
			best = i
		}
	}
	if best < 0 {
		return nil, errNoLeader
	}
	return f.store[best], nil
}

// AwaitStore returns when every running member of the store serves and one takes writes.
func (f *Fleet) AwaitStore(ctx context.Context) error {
	for _, p := range f.store {
		if p.Running() {
			if err := p.Ready(ctx); err != nil {
				return err
			}
		}
	}
	_, err := f.Primary(ctx)
	return err
}

func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder of a process: %w", err)
	}
	return nil
}

// disconnect closes the fleet's own connections.
func (f *Fleet) disconnect() {
	if f.nc != nil {
		f.nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	for _, c := range f.members {
		_ = c.Disconnect(ctx)
	}
}
