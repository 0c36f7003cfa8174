package client

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/wirepost/wirepost/shared/protocol"
)

const (
	tokenTimeout = 30 * time.Second
	loginTimeout = 35 * time.Second // the reply: the gateway allows itself 10 s for the token and 20 s for the downlink
	tokenRetry   = 5 * time.Second  // after a refresh that failed
	firstBackoff = 250 * time.Millisecond
	// stableAfter is how long a connection must live for the backoff to begin anew.
	stableAfter      = 5 * time.Second
	defaultHeartbeat = 25 * time.Second
)

var (
	errLoginTimeout = errors.New("the gateway did not answer the login")
	errDraining     = errors.New("the gateway goes away")
	errBadLogin     = errors.New("the gateway's login reply is unreadable")
)

type phase uint8

const (
	offline phase = iota // waiting for the next attempt, or dialing
	loggingIn
	live
)

// link is the connection and what the gateway said about it. Owned by Run.
type link struct {
	conn    *conn // nil while offline
	phase   phase
	since   time.Time // live since
	url     int       // index of the last URL tried
	attempt int       // failed attempts since the last stable connection

	token      string // kept until the gateway refuses it; "" = ask for one
	refreshing bool   // a new token was asked for on the live connection
	sentResume string // with this connection's login

	self      string        // the user's id
	maxFrame  int           // bytes
	beatEvery time.Duration // from the login reply

	retry, login, beat, watch, drain *alarm
}

func newLink(o Options) link {
	return link{url: rand.IntN(len(o.URLs)), maxFrame: protocol.MaxFrame, self: o.User}
}

// off stops every alarm of the link.
func (l *link) off() {
	for _, a := range []*alarm{l.retry, l.login, l.beat, l.watch, l.drain} {
		a.off()
	}
}

// connect begins an attempt: token if needed, dial, handshake, login.
func (c *Client) connect() {
	l := &c.link
	l.url = (l.url + 1) % len(c.opts.URLs)
	url, token := c.opts.URLs[l.url], l.token
	c.work.Go(func() {
		var d dialed
		if token == "" {
			token, d.err = c.newToken()
		}
		if d.err == nil && c.opts.BearerLogin {
			d = c.dial(c.ctx, url, token)
		} else if d.err == nil {
			d = c.dial(c.ctx, url, "")
		}
		if !c.post(func() { c.dialed(token, d) }) && d.nc != nil {
			_ = d.nc.Close()
		}
	})
}

func (c *Client) newToken() (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, tokenTimeout)
	defer cancel()
	token, err := c.opts.Token(ctx)
	if err == nil && token == "" {
		err = errors.New("Options.Token returned an empty token")
	}
	return token, err
}

// dialed goes on with a connection on which nothing was sent yet, or with the failure.
func (c *Client) dialed(token string, d dialed) {
	c.link.token = token
	switch {
	case c.stop != nil || c.ctx.Err() != nil:
		if d.nc != nil {
			_ = d.nc.Close()
		}
		return
	case d.err != nil:
		c.lost(closeAbnormal, d.err, d.retryAfter)
		return
	}
	c.link.conn, c.link.phase = c.begin(d.nc, d.early), loggingIn
	c.link.sentResume = ""
	if !c.opts.BearerLogin {
		c.link.sentResume = c.in.safe
		c.writeLogin(c.in.safe)
	}
	c.link.login = c.after(loginTimeout, func() { c.lost(closeAbnormal, errLoginTimeout, 0) })
}

func (c *Client) writeLogin(resume string) {
	body, err := json.Marshal(protocol.LoginRequest{Token: c.link.token, DeviceID: c.opts.DeviceID, Resume: resume})
	if err != nil { // three strings always marshal
		panic(err)
	}
	m := protocol.Message{MsgType: protocol.Login, SendUserID: c.opts.User, MsgBody: body}
	c.link.conn.write(m.Append(nil))
}

// received deals with what the reader found.
func (c *Client) received(f inFrame) {
	switch {
	case errors.Is(f.err, errFraming):
		c.link.conn.close(closeProtocol)
		c.lost(closeAbnormal, f.err, 0)
	case f.err != nil:
		code, err := closeOf(f.err)
		c.lost(code, err, 0)
	case f.ping != nil:
		c.link.conn.write(append([]byte{pong}, f.ping...))
	default:
		c.message(f.text)
	}
}

func (c *Client) message(text []byte) {
	var m protocol.Message
	if err := json.Unmarshal(text, &m); err != nil {
		c.opts.Log.Warn("unreadable frame from the gateway", "err", err)
		return
	}
	if c.link.phase == loggingIn && m.MsgType != protocol.Login {
		return // nothing comes before the login reply
	}
	switch m.MsgType {
	case protocol.Login:
		if c.link.phase != live {
			c.loginReply(&m)
			return
		} // else: a new token was accepted, and everything before the reply's position is here
	case protocol.Business:
		c.business(&m)
	case protocol.Notice:
		c.notice(&m)
	}
	if m.Resume != "" {
		c.in.latest = m.Resume
	}
	c.saveToken()
}

// loginReply makes the connection live.
func (c *Client) loginReply(m *protocol.Message) {
	var r protocol.LoginReply
	if err := json.Unmarshal(m.MsgBody, &r); err != nil {
		c.lost(closeAbnormal, errBadLogin, 0)
		return
	}
	l := &c.link
	if r.MaxFrame > 0 {
		l.maxFrame = r.MaxFrame
	}
	l.login.off()
	l.phase, l.since = live, time.Now()
	if r.UserID != "" {
		l.self = r.UserID
	}
	l.beatEvery = defaultHeartbeat
	if r.HeartbeatMs > 0 {
		l.beatEvery = time.Duration(r.HeartbeatMs) * time.Millisecond
	}
	l.beatEvery = positive(c.opts.HeartbeatInterval, l.beatEvery)
	l.beat = c.after(l.beatEvery, c.heartbeat)
	l.watch = c.after(l.beatEvery/2, c.watchPeer)
	resumed := r.Resumed && l.sentResume != ""
	c.queue.push(Connected{Resumed: resumed, ConnID: r.ConnID, Edge: r.Edge, UserID: l.self})
	c.attached(resumed, m.Resume)
	c.resendRequests()
	c.pump()
}

func (c *Client) heartbeat() {
	c.link.conn.write([]byte(`{"msgType":1}`))
	c.link.beat = c.after(c.link.beatEvery, c.heartbeat)
}

// watchPeer gives up a connection on which nothing was heard for 2.5 intervals. While
// this client does not read, silence means nothing.
func (c *Client) watchPeer() {
	l := &c.link
	heard := time.Unix(0, l.conn.heard.Load())
	if !c.paused() && time.Since(heard) > l.beatEvery*5/2 {
		c.lost(closeAbnormal, errDeadPeer, 0)
		return
	}
	l.watch = c.after(l.beatEvery/2, c.watchPeer)
}

// resumeReading is called when an event was handed over: silence counts from here when
// the socket was not read before.
func (c *Client) resumeReading() {
	if c.link.conn != nil && c.queue.len() == c.opts.EventBuffer-1 {
		c.link.conn.heard.Store(time.Now().UnixNano())
	}
}

func (c *Client) notice(m *protocol.Message) {
	wait := time.Duration(m.RetryAfterMs) * time.Millisecond
	c.queue.push(Notice{Code: m.Code, Reason: m.Reason, RetryAfter: wait})
	switch m.Code {
	case protocol.NoticeDrain:
		if !c.link.drain.on() {
			c.link.drain = c.after(randomBelow(wait), c.leave)
		}
	case protocol.NoticeResync:
		c.resync()
	case protocol.NoticeTokenExpiry:
		c.refresh()
	}
}

// leave gives up a connection to a gateway that goes away, and connects at once.
func (c *Client) leave() {
	c.link.conn.close(closeNormal)
	c.disconnected(Disconnected{Code: protocol.CloseDrain, Err: errDraining})
	c.link.attempt = 0
	c.connect()
}

// refresh gets a new token and logs in with it on the live connection.
func (c *Client) refresh() {
	l := &c.link
	if l.refreshing || l.phase != live {
		return
	}
	l.refreshing = true
	c.work.Go(func() {
		token, err := c.newToken()
		c.post(func() { c.refreshed(token, err) })
	})
}

func (c *Client) refreshed(token string, err error) {
	l := &c.link
	l.refreshing = false
	if err == nil {
		l.token = token
	}
	switch {
	case l.phase != live || c.stop != nil:
	case err != nil:
		c.opts.Log.Warn("no new token", "err", err)
		l.retry = c.after(tokenRetry, c.refresh)
	default:
		c.writeLogin("")
	}
}

// lost deals with the end of a connection or of an attempt: final, or again later. wait
// is the least time before the next attempt.
func (c *Client) lost(code int, err error, wait time.Duration) {
	again, newToken := protocol.Reconnect(code)
	if newToken {
		c.link.token = ""
	}
	if c.link.phase == live && time.Since(c.link.since) >= stableAfter {
		c.link.attempt = 0
	}
	if code == closeTooBig {
		c.outgrown()
	}
	c.opts.Log.Info("disconnected", "code", code, "err", err, "again", again)
	c.disconnected(Disconnected{Code: code, Err: err, Final: !again})
	if !again {
		c.halt(err)
		return
	}
	longest := min(firstBackoff<<min(c.link.attempt, 16), c.opts.MaxBackoff)
	c.link.attempt++
	c.link.retry = c.after(wait+randomBelow(longest), c.connect)
}

// disconnected forgets the connection, if there is one.
func (c *Client) disconnected(ev Disconnected) {
	c.link.off()
	if c.link.conn != nil {
		c.link.conn.close(closeAbnormal)
		c.link.conn = nil
	}
	c.link.phase = offline
	c.out.disconnected()
	c.asks.disconnected()
	c.in.disconnected()
	c.queue.push(ev)
}

func randomBelow(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
