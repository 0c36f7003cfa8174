package gen

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patience is how long answers may take after the last message of a job.
const patience = 20 * time.Second

var errSlow = errors.New("answers are missing")

// asking is the jobs Ask and Chat: on each connection one message is under way. With a
// rate messages are due at fixed times, taken in turns by the connections; one that is
// due while its connection waits is sent with the answer, and its latency counts from
// when it was due. So a slow server is not asked less, and hides nothing.
type asking struct {
	g     *Generator
	talk  talk
	conns []asker
	gap   time.Duration // between two messages; 0: without a rate
	due   time.Duration // of the next message
	next  int           // connection
	open  int           // messages under way
	began time.Duration
	end   time.Duration // of asking
	taken []time.Duration
	last  time.Duration // when the last answer came
}

// asker is one connection of the job.
type asker struct {
	due     time.Duration // of the message under way; 0: none is
	waiting []time.Duration
}

// talk is what is asked and what is an answer.
type talk interface {
	message(id int) []byte
	answers(id int, b []byte) (bool, error)
}

func (g *Generator) ask(c Command) {
	now := g.client.Now()
	a := &asking{g: g, conns: make([]asker, c.N), began: now, due: now, end: now + c.For}
	a.talk = plainTalk{g.d.ask}
	if c.Do == Chat {
		a.talk = newChatter(c.N)
	}
	g.job = a
	if c.Rate > 0 {
		a.gap = time.Duration(float64(time.Second) / c.Rate)
		a.woken()
		return
	}
	for id := range a.conns {
		a.send(id, now)
	}
	g.client.WakeAt(a.end)
}

func (a *asking) send(id int, due time.Duration) {
	a.conns[id].due = due
	a.open++
	if err := a.g.conns[id].Text(a.talk.message(id)); err != nil {
		a.g.fail(fmt.Errorf("connection %d: %w", id, err))
	}
}

func (a *asking) woken() {
	now := a.g.client.Now()
	for a.gap > 0 && a.due <= now && a.due < a.end {
		if c := &a.conns[a.next]; c.due != 0 {
			c.waiting = append(c.waiting, a.due)
		} else {
			a.send(a.next, a.due)
		}
		a.next = (a.next + 1) % len(a.conns)
		a.due += a.gap
	}
	switch {
	case now >= a.end+a.g.opt.patience:
		a.g.fail(fmt.Errorf("%w: %d of %d within %v", errSlow, a.open, a.open+len(a.taken), a.g.opt.patience))
	case now >= a.end:
		if a.finished() {
			return
		}
		a.g.client.WakeAt(a.end + a.g.opt.patience)
	case a.gap > 0:
		a.g.client.WakeAt(min(a.due, a.end))
	default:
		a.g.client.WakeAt(a.end)
	}
}

func (a *asking) message(id uint32, b []byte) {
	if int(id) >= len(a.conns) {
		return
	}
	c := &a.conns[id]
	is, err := a.talk.answers(int(id), b)
	if err == nil && is && c.due == 0 {
		err = fmt.Errorf("%w: an answer to nothing: %.200s", errServer, b)
	}
	if err != nil {
		a.g.fail(err)
		return
	}
	if !is {
		a.finished() // it may have been the last delivery that was missing
		return
	}
	now := a.g.client.Now()
	a.taken = append(a.taken, now-c.due)
	a.last = now
	a.open--
	c.due = 0
	switch {
	case len(c.waiting) > 0:
		due := c.waiting[0]
		c.waiting = c.waiting[:copy(c.waiting, c.waiting[1:])]
		a.send(int(id), due)
	case a.gap == 0 && now < a.end:
		a.send(int(id), now)
	default:
		a.finished()
	}
}

// finished ends the job when its time is over, all that was due is sent and nothing is
// under way, and reports whether it has. An answer may come before a wake-up that is late.
func (a *asking) finished() bool {
	chat, _ := a.talk.(*chatter)
	if a.open > 0 || a.gap > 0 && a.due < a.end || a.g.job != a || a.g.client.Now() < a.end || chat != nil && chat.delivered < len(a.taken) {
		return false
	}
	slices.Sort(a.taken)
	r := Result{Count: len(a.taken), Took: a.last - a.began}
	if n := len(a.taken); n > 0 {
		r.P50, r.P99 = a.taken[n/2], a.taken[n*99/100]
	}
	if chat != nil {
		r.Delivered = chat.delivered
	}
	a.g.done(r)
	return true
}

// plainTalk: every message is an answer.
type plainTalk struct{ text []byte }

func (p plainTalk) message(int) []byte                { return p.text }
func (p plainTalk) answers(int, []byte) (bool, error) { return true, nil }

// chatter sends from each user to the next one, in pairs; one connection is one user. The
// echo of a message answers it; the job ends when each message has reached its recipient,
// too.
type chatter struct {
	run       string // distinguishes the messages of this job from all others
	sent      []int
	delivered int
	buf       []byte
	filler    string
}

func newChatter(n int) *chatter {
	return &chatter{run: strconv.FormatInt(time.Now().UnixNano(), 36), sent: make([]int, n), filler: strings.Repeat("x", size)}
}

// key is the clientMsgId of a message: "<run>-<user>-<number>".
func (c *chatter) key(b []byte, id int) []byte {
	b = append(append(b, c.run...), '-')
	b = append(strconv.AppendInt(b, int64(id), 10), '-')
	return strconv.AppendInt(b, int64(c.sent[id]), 10)
}

func (c *chatter) message(id int) []byte {
	c.sent[id]++
	b := append(c.buf[:0], `{"msgType":3,"receivedUserId":"`...)
	b = append(append(b, User(id^1)...), `","bizType":1,"bizOptModule":1,"clientMsgId":"`...)
	b = c.key(b, id)
	b = append(b, `","msgBody":{"text":"`...)
	b = append(append(b, c.filler...), `"}}`...)
	c.buf = b
	return b
}

var (
	keyField  = []byte(`"clientMsgId":"`)
	codeField = []byte(`"code":`)
)

func (c *chatter) answers(id int, b []byte) (bool, error) {
	at := bytes.Index(b, keyField)
	if at < 0 || bytes.Contains(b, codeField) {
		return false, fmt.Errorf("%w: user %d got %.300s", errServer, id, b)
	}
	var want [64]byte
	key := c.key(want[:0], id)
	rest := b[at+len(keyField):]
	if bytes.HasPrefix(rest, key) && len(rest) > len(key) && rest[len(key)] == '"' {
		return true, nil
	}
	if bytes.HasPrefix(rest, []byte(c.run)) { // not a late one of an earlier job
		c.delivered++
	}
	return false, nil
}
