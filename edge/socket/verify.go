package socket

import (
	"context"
	"sync"
	"time"

	"github.com/wirepost/wirepost/edge/auth"
)

// question is a token to be verified for a connection.
type question struct {
	c       *Conn
	token   string
	claimed string // sendUserId of the login, "" for none
	resume  string
}

// verdict is the answer to a question.
type verdict struct {
	who     auth.Identity
	err     error
	claimed string
	resume  string
}

// pool verifies tokens beside the loops, because a verifier may wait for a key. It is
// bounded in goroutines and in questions; one too many is refused, never queued.
type pool struct {
	verifier Verifier
	patience time.Duration
	asked    chan question // written by loops, read by the goroutines; never closed
	end      context.CancelFunc
	ctx      context.Context //nolint:containedctx // its end is the pool's
	done     sync.WaitGroup
}

const maxQuestions = 4096

func newPool(v Verifier, n int, patience time.Duration) *pool {
	p := &pool{verifier: v, patience: patience, asked: make(chan question, maxQuestions)}
	p.ctx, p.end = context.WithCancel(context.Background())
	for range n {
		p.done.Go(p.work)
	}
	return p
}

// ask reports false when there are too many questions. It never blocks.
func (p *pool) ask(q question) bool {
	select {
	case p.asked <- q:
		return true
	default:
		return false
	}
}

func (p *pool) work() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case q := <-p.asked:
			p.answer(q)
		}
	}
}

func (p *pool) answer(q question) {
	ctx, cancel := context.WithTimeout(p.ctx, p.patience)
	defer cancel()
	who, err := p.verifier.Verify(ctx, q.token)
	q.c.verified(&verdict{who: who, err: err, claimed: q.claimed, resume: q.resume})
}

func (p *pool) stop() {
	p.end()
	p.done.Wait()
}
