// Package crowd is the healthy users: each sends a message and a heartbeat at set times
// and waits for the answer to the heartbeat, which comes when JetStream has the message.
//
// A round trip counts from the time at which it was to begin, so that nothing hides behind
// an edge that is late.
package crowd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// Crowd is some users who are logged in.
type Crowd struct {
	users []*user

	mu    sync.Mutex
	trips []Trip
	errs  []error // of users who were cut off
}

// Trip is one round trip.
type Trip struct {
	At   time.Time // when it was to begin
	Took time.Duration
}

type user struct {
	name  string
	conn  net.Conn
	br    *bufio.Reader
	begun chan time.Time // written by the sender, read by the reader
}

const (
	loginMax  = 10 * time.Second
	heartbeat = `{"msgType":1}`
)

// Login connects n users. token makes their tokens.
func Login(addr string, n int, token func(user string) string) (*Crowd, error) {
	c := &Crowd{}
	for i := range n {
		u := &user{name: fmt.Sprintf("healthy-%d", i), begun: make(chan time.Time, 1024)}
		if err := u.login(addr, token(u.name)); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s: %w", u.name, err)
		}
		c.users = append(c.users, u)
	}
	return c, nil
}

func (u *user) login(addr, token string) error {
	ctx, cancel := context.WithTimeout(context.Background(), loginMax)
	defer cancel()
	d := ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + token}})}
	conn, br, _, err := d.Dial(ctx, "ws://"+addr+"/ws")
	if err != nil {
		return err
	}
	if br == nil {
		br = bufio.NewReader(conn)
	}
	u.conn, u.br = conn, br
	_ = conn.SetReadDeadline(time.Now().Add(loginMax))
	_, _, err = u.read()
	_ = conn.SetReadDeadline(time.Time{})
	return err
}

// read returns the next frame.
func (u *user) read() (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(u.br)
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(u.br, b); err != nil {
		return 0, nil, err
	}
	if h.OpCode == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(b)
		return 0, nil, fmt.Errorf("closed with %d %q", code, reason)
	}
	return h.OpCode, b, nil
}

// Close cuts everybody off.
func (c *Crowd) Close() {
	for _, u := range c.users {
		_ = u.conn.Close()
	}
}

// Talk lets each user begin a round trip every period, spread evenly, until ctx ends, and
// returns when all are answered or patience is over.
func (c *Crowd) Talk(ctx context.Context, period, patience time.Duration) {
	begin := time.Now()
	var all sync.WaitGroup
	for i, u := range c.users {
		offset := period * time.Duration(i) / time.Duration(len(c.users))
		all.Go(func() { c.talk(ctx, u, begin.Add(offset), period, patience) })
		all.Go(func() { c.hear(u) })
	}
	all.Wait()
}

func (c *Crowd) talk(ctx context.Context, u *user, at time.Time, period, patience time.Duration) {
	defer close(u.begun)
	message := fmt.Sprintf(`{"msgType":3,"bizType":1,"bizOptModule":1,"receivedUserId":"x","clientMsgId":"x","msgBody":"from %s"}`, u.name)
	both := append(masked(message), masked(heartbeat)...)
	for ; ; at = at.Add(period) {
		wait := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			wait.Stop()
			_ = u.conn.SetReadDeadline(time.Now().Add(patience)) // for what is under way
			return
		case <-wait.C:
		}
		u.begun <- at
		if _, err := u.conn.Write(both); err != nil {
			return // the reader tells why
		}
	}
}

// hear takes the answers, in the order in which they were asked for.
func (c *Crowd) hear(u *user) {
	for at := range u.begun {
		for {
			op, b, err := u.read()
			if err != nil {
				c.mu.Lock()
				c.errs = append(c.errs, fmt.Errorf("%s, %v after its message: %w", u.name, time.Since(at).Round(time.Millisecond), err))
				c.mu.Unlock()
				for range u.begun {
				}
				return
			}
			if op == ws.OpPing {
				_, _ = u.conn.Write(ws.MustCompileFrame(ws.MaskFrame(ws.NewPongFrame(b))))
			}
			if op == ws.OpText && len(b) >= len(heartbeat) && string(b[len(b)-len(`"msgType":1}`):]) == `"msgType":1}` {
				break
			}
		}
		c.mu.Lock()
		c.trips = append(c.trips, Trip{at, time.Since(at)})
		c.mu.Unlock()
	}
}

// Errors returns why users were cut off or not answered.
func (c *Crowd) Errors() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.errs)
}

// Trips returns the round trips that were to begin from…to, the shortest first.
func (c *Crowd) Trips(from, to time.Time) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var took []time.Duration
	for _, t := range c.trips {
		if !t.At.Before(from) && t.At.Before(to) {
			took = append(took, t.Took)
		}
	}
	slices.Sort(took)
	return took
}

// Quantile returns the q-th part of sorted durations, 0 if there are none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func masked(text string) []byte {
	return ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(text))))
}
