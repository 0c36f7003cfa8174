package socket

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/shared/protocol"
)

// loginFrame is what the edge reads of a login.
type loginFrame struct {
	SendUserID string                `json:"sendUserId"`
	MsgBody    protocol.LoginRequest `json:"msgBody"`
}

func (g *gateway) opened(c *Conn, token string) {
	if token == "" {
		c.state, c.deadline = stLogin, c.k.now().after(g.srv.cfg.Times.Login)
		return
	}
	g.verify(c, token, "", "")
}

// login takes the first frame.
func (g *gateway) login(c *Conn, data []byte) {
	if msgType(data) != protocol.Login {
		c.close(EndNotLogin, "the first frame must be a login")
		return
	}
	var f loginFrame
	switch err := json.Unmarshal(data, &f); {
	case err != nil:
		c.close(EndNotLogin, "the login is not well formed")
	case f.MsgBody.Token == "":
		c.close(EndNotLogin, "the login holds no token")
	case len(f.MsgBody.DeviceID) > protocol.MaxDeviceID:
		c.close(EndNotLogin, "deviceId is longer than 128 bytes")
	default:
		c.sess.device = f.MsgBody.DeviceID
		g.verify(c, f.MsgBody.Token, f.SendUserID, f.MsgBody.Resume)
	}
}

// refresh takes a login on a connection that has one.
func (g *gateway) refresh(c *Conn, data []byte) {
	var f loginFrame
	if err := json.Unmarshal(data, &f); err != nil || f.MsgBody.Token == "" {
		c.close(EndNotLogin, "the login is not well formed")
		return
	}
	g.verify(c, f.MsgBody.Token, f.SendUserID, "")
}

// verify gives a token to the pool. Nothing is taken from the peer until the answer.
func (g *gateway) verify(c *Conn, token, claimed, resume string) {
	if c.state < stOpen {
		c.state, c.deadline = stVerify, c.k.now().after(g.srv.cfg.Times.Verify)
		c.rearm()
	}
	c.set(fVerifying)
	if !g.srv.verifiers.ask(question{c: c, token: token, claimed: claimed, resume: resume}) {
		c.drop(fVerifying)
		c.close(EndNoVerdict, "too many logins at once, reconnect")
	}
}

// verified takes the pool's answer.
func (g *gateway) verified(c *Conn, v *verdict) {
	c.drop(fVerifying)
	if c.state >= stClosing {
		return
	}
	var refusal *auth.Refusal
	switch {
	case errors.As(v.err, &refusal):
		end := EndRefused
		if refusal.Close == protocol.CloseTokenExpired {
			end = EndExpired
		}
		c.close(end, refusal.Reason)
		return
	case v.err != nil:
		c.close(EndNoVerdict, "the token could not be verified, reconnect")
		return
	case !c.user.IsZero() && c.user != v.who.User:
		c.close(EndRefused, "the token is for another user")
		return
	case v.claimed != "" && v.claimed != v.who.User.Raw():
		c.close(EndRefused, "sendUserId is not the user of the token")
		return
	}
	now := c.k.now()
	c.sess.expires = now.after(max(time.Until(v.who.Expires), 0) + stampLag) // never before the token does
	c.drop(fWarned)
	if c.state == stOpen {
		g.loginReply(c, true)
		c.rearm()
		c.resume()
		return
	}
	c.user = v.who.User
	c.state, c.deadline = stAttach, now.after(g.srv.cfg.Times.Attach)
	c.set(fAttached)
	c.rearm()
	g.srv.deps.Downlink.Attach(c, c.user, c.connID(), v.resume)
}

// attached opens the connection: login reply first, then frames of the downlink.
func (g *gateway) attached(c *Conn, resumed bool, at downlink.Token) {
	if c.state != stAttach {
		return
	}
	c.state = stOpen
	c.arrived()
	c.hear(c.k.now())
	c.sess.at = at
	c.k.add(nLogins, 1)
	g.loginReply(c, resumed)
	c.rearm()
	g.announce(c)
}

func (g *gateway) loginReply(c *Conn, resumed bool) {
	now := time.Now()
	body, err := json.Marshal(protocol.LoginReply{
		ConnID: c.connID(), Edge: g.srv.cfg.Edge, UserID: c.user.Raw(),
		ServerTime:  now.UnixMilli(),
		HeartbeatMs: g.srv.cfg.Times.Heartbeat.Milliseconds(),
		MaxFrame:    g.srv.cfg.Limits.Frame,
		ExpiresAt:   now.Add(c.sess.expires.sub(c.k.now())).UnixMilli(),
		Resumed:     resumed,
		Features:    []string{},
	})
	if err != nil { // strings and numbers always marshal
		return
	}
	c.drop(fMoved)
	m := protocol.Message{Resume: c.sess.at.String(), MsgType: protocol.Login, MsgBody: body}
	c.k.tmp = m.Append(c.k.tmp[:0])
	c.send(ws.OpText, c.k.tmp)
}
