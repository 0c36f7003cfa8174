package agent

import (
	"time"

	"github.com/tidwall/gjson"

	"github.com/wirepost/wirepost/scripts/load/wire"
	"github.com/wirepost/wirepost/shared/protocol"
)

// message is what an agent reads of a frame.
type message struct {
	msgType, code int
	clientMsgID   string
	resume        string
	resumed       bool  // of a login reply
	heartbeatMs   int64 // of a login reply
	retryAfterMs  int64 // of a notice
}

// read takes what is needed out of a frame, in one pass over it: the body of a business
// message is only skipped.
func read(b []byte) (m message) {
	gjson.ParseBytes(b).ForEach(func(k, v gjson.Result) bool {
		switch k.Str {
		case "msgType":
			m.msgType = int(v.Int())
		case "resume":
			m.resume = v.Str
		case "clientMsgId":
			m.clientMsgID = v.Str
		case "retryAfterMs":
			m.retryAfterMs = v.Int()
		case "code":
			m.code = int(v.Int())
		case "msgBody":
			if m.msgType == protocol.Login {
				m.resumed, m.heartbeatMs = v.Get("resumed").Bool(), v.Get("heartbeatMs").Int()
			}
		}
		return true
	})
	return m
}

// Message takes what the gateway sends.
func (a *agent) Message(c *wire.Conn, _ bool, b []byte) {
	d := &a.devices[c.ID()]
	m := read(b)
	switch m.msgType {
	case protocol.Login:
		a.loggedIn(c, d, m)
	case protocol.Heartbeat:
		a.answered(c, d)
	case protocol.Business:
		if m.code != 0 {
			a.refused(m.clientMsgID, m.code)
		} else {
			a.arrived(c.ID(), m.clientMsgID)
		}
	case protocol.Notice:
		if m.code == protocol.NoticeDrain {
			a.told(c.ID(), time.Duration(m.retryAfterMs)*time.Millisecond)
		}
	}
	if m.resume != "" && !a.plan.Forgetful {
		d.resume = append(d.resume[:0], m.resume...)
	}
}
