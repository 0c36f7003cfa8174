package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/wirepost/wirepost/scripts/load/tally"
	"github.com/wirepost/wirepost/scripts/load/wire"
	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	firstBackoff = 250 * time.Millisecond // PROTOCOL.md section 9
	maxBackoff   = 30 * time.Second
	moveAfter    = 6 // failed tries at one address before the next one is tried
	maxSilent    = 2 // heartbeats without an answer before a connection is given up
)

var heartbeat = []byte(`{"msgType":1}`)

// device is one connection over its reconnects, some 100 bytes.
type device struct {
	conn   *wire.Conn    // nil: there is none, or it is not logged in
	resume []byte        // the newest resume token
	outbox []uint32      // sends that are not acknowledged, oldest first
	beat   time.Duration // when the heartbeat that waits for an answer was sent; 0: none waits
	lost   time.Duration // when the connection was lost; 0: there was none yet
	due    time.Duration // when it connects, if it is offline, or leaves its edge; 0: nothing is planned
	every  uint32        // milliseconds between heartbeats
	target uint16
	tries  uint8 // that failed, since it was online
	silent uint8
	asked  bool // the login holds a resume token
}

func (a *agent) dial(i uint32) {
	a.paces.Tried.Count()
	a.client.Dial(int(a.devices[i].target), i)
}

// planned has a device do at a time what turn does.
func (a *agent) planned(i uint32, at time.Duration) {
	a.devices[i].due = at
	a.later.add(at, i)
	a.alarm()
}

// turn connects a device that is offline, and moves one that is online.
func (a *agent) turn(w waiting) {
	d := &a.devices[w.device]
	switch {
	case d.due != w.at:
	case d.conn != nil && d.conn.IsOpen():
		a.leave(w.device, d)
	case d.conn != nil: // the edge was quicker, and Closed follows
	default:
		d.due = 0
		a.waiting--
		a.dial(w.device)
	}
}

// Header gives the token of a first login. A resume token can only be brought by a login
// message.
func (a *agent) Header(c *wire.Conn, b []byte) []byte {
	d := &a.devices[c.ID()]
	if d.asked = len(d.resume) > 0; d.asked {
		return b
	}
	token, err := a.users.token(int(c.ID()))
	if err != nil {
		return b // the gateway closes the connection for want of a login
	}
	return append(append(append(b, "Authorization: Bearer "...), token...), "\r\n"...)
}

// Opened logs in with what the device had last.
func (a *agent) Opened(c *wire.Conn) {
	d := &a.devices[c.ID()]
	if !d.asked {
		return
	}
	token, err := a.users.token(int(c.ID()))
	if err != nil {
		return
	}
	body, err := json.Marshal(protocol.LoginRequest{Token: token, Resume: string(d.resume)})
	if err != nil { // strings always marshal
		return
	}
	_ = c.Text((&protocol.Message{MsgType: protocol.Login, MsgBody: body}).Append(nil)) // it is open
}

// loggedIn takes a login reply.
func (a *agent) loggedIn(c *wire.Conn, d *device, m message) {
	if d.conn != nil {
		return // the reply to a later login
	}
	now := c.Client().Now()
	d.conn, d.tries, d.silent, d.beat = c, 0, 0, 0
	a.counts[tally.Online]++
	a.counts[tally.Logins]++
	a.paces.In.Count()
	if d.lost == 0 {
		a.times.Record(tally.Login, now-c.Begun())
		a.span.LastLogin = time.Now().UnixNano()
	} else {
		a.times.Record(tally.Back, now-d.lost)
		a.span.LastBack = time.Now().UnixNano()
	}
	if d.asked {
		if m.resumed {
			a.counts[tally.Resumed]++
		} else {
			a.counts[tally.NotResumed]++
		}
	}
	if d.every = uint32(m.heartbeatMs); d.every > 0 {
		// The first one at a random moment, so that all of them are spread evenly.
		c.Arm(time.Duration(a.rnd.Uint32N(d.every)) * time.Millisecond)
	}
	for _, n := range d.outbox {
		if a.sends.all[n].written {
			a.counts[tally.Repeated]++
			a.sends.all[n].again = true
		}
		a.write(d, n)
	}
}

// Timer sends a heartbeat, and gives up a connection that does not answer them.
func (a *agent) Timer(c *wire.Conn) {
	d := &a.devices[c.ID()]
	if d.conn == nil {
		return
	}
	if d.beat != 0 {
		if d.silent++; d.silent >= maxSilent {
			c.Abort()
			a.gone(c.ID(), "silent", 0)
			return
		}
	}
	if c.Text(heartbeat) == nil {
		a.counts[tally.Beats]++
		d.beat = c.Client().Now()
	}
	c.Arm(time.Duration(d.every) * time.Millisecond)
}

func (a *agent) answered(c *wire.Conn, d *device) {
	d.silent = 0
	if d.beat != 0 {
		a.counts[tally.Answers]++
		a.times.Record(tally.Beat, c.Client().Now()-d.beat)
		d.beat = 0
	}
}

// Closed takes the end of a connection that nobody here asked for.
func (a *agent) Closed(c *wire.Conn, e wire.End) {
	if e.Local && e.Err == nil {
		return // the device has left it, and has another one by now: see leave
	}
	if again, _ := protocol.Reconnect(e.Code); !again {
		a.counts[tally.Given]++
		a.ends[why(e)]++
		a.offline(&a.devices[c.ID()])
		return
	}
	if e.Status == 503 {
		a.counts[tally.TurnedAway]++
		a.again(c.ID(), e.RetryAfter)
		return
	}
	if e.Code == protocol.CloseDrain && a.devices[c.ID()].conn != nil {
		a.moved(&a.devices[c.ID()])
		a.ends[why(e)]++
		a.again(c.ID(), 0)
		return
	}
	a.gone(c.ID(), why(e), e.RetryAfter)
}

// told takes the notice of an edge that goes away: the device leaves at a random moment of
// the time it is given. Every fourth does not heed it, as a client in the field may, and
// is closed.
func (a *agent) told(i uint32, within time.Duration) {
	if d := &a.devices[i]; d.conn != nil && d.due == 0 && i%4 != 0 {
		a.planned(i, a.client.Now()+time.Duration(a.rnd.Int64N(int64(max(within, 0))+1)))
	}
}

// leave closes a connection to an edge that goes away, and connects at once.
func (a *agent) leave(i uint32, d *device) {
	d.conn.Close(1000)
	a.moved(d)
	a.ends["told to leave"]++
	a.dial(i)
}

// moved counts a connection that ends because its edge goes away.
func (a *agent) moved(d *device) {
	d.conn, d.lost, d.due = nil, a.client.Now(), 0
	a.counts[tally.Online]--
	a.counts[tally.Moved]++
	a.paces.Moved.Count()
}

// gone counts a connection that ended or could not be opened, and plans the next.
func (a *agent) gone(i uint32, why string, after time.Duration) {
	a.ends[why]++
	if !a.offline(&a.devices[i]) {
		a.counts[tally.Failed]++
	}
	a.again(i, after)
}

// offline reports whether the device was online.
func (a *agent) offline(d *device) bool {
	if d.conn == nil {
		return false
	}
	d.conn, d.lost, d.due = nil, a.client.Now(), 0
	a.counts[tally.Online]--
	a.counts[tally.Dropped]++
	return true
}

// again connects after the protocol's backoff with full jitter, or in the second time
// that the server asked for.
func (a *agent) again(i uint32, after time.Duration) {
	d := &a.devices[i]
	wait := min(maxBackoff, firstBackoff<<min(d.tries, 8))
	d.tries = min(d.tries+1, 250)
	if d.tries%moveAfter == 0 {
		d.target = uint16((int(d.target) + 1) % len(a.plan.URLs))
	}
	wait = after + time.Duration(a.rnd.Int64N(int64(max(wait, after))+1))
	a.waiting++
	a.planned(i, a.client.Now()+wait)
}

// why is a short name of an end, for the table.
func why(e wire.End) string {
	switch {
	case e.Status != 0:
		return "status " + strconv.Itoa(e.Status)
	case e.Err == io.EOF, e.Err == nil && e.Code == 1006:
		return "1006 without a close frame"
	case e.Err != nil:
		return e.Err.Error()
	}
	return fmt.Sprintf("%d %s", e.Code, e.Reason)
}
