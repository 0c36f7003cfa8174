package messaging

import (
	"encoding/json"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

// addFrame reads a client's frame and adds what it asks for to the plan: a message, a
// query, or a refusal.
func (s *Service) addFrame(p *plan, index int, ev *envelope.Event) {
	var m protocol.Message
	if err := json.Unmarshal(ev.Data, &m); err != nil {
		p.refuse(lenientSender(ev), protocol.CodeMalformed, "not a message object: "+err.Error())
		return
	}
	from := sender{ev: ev, index: index, clientMsgID: m.ClientMsgID, reqID: m.ReqID}
	if len(m.ReqID) > protocol.MaxReqID {
		from.reqID = ""
		p.refuse(from, protocol.CodeBadField, "reqId is longer than 64 bytes")
		return
	}
	if len(m.ClientMsgID) > protocol.MaxClientMsgID || !printable(m.ClientMsgID) {
		from.clientMsgID = ""
		p.refuse(from, protocol.CodeBadField, "clientMsgId is not 1 to 64 bytes of printable ASCII")
		return
	}
	switch {
	case m.MsgType != protocol.Business:
		p.refuse(from, protocol.CodeUnknownMsgType, "unknown msgType")
	case m.SendUserID != "" && m.SendUserID != ev.User.Raw():
		p.refuse(from, protocol.CodeForeignSender, "sendUserId is not the user of this connection")
	case m.BizType == protocol.BizChat:
		s.addChat(p, from, &m)
	case m.BizType == protocol.BizQuery:
		s.addQuery(p, from, &m)
	default:
		p.refuse(from, protocol.CodeUnknownBizType, "unknown bizType")
	}
}

func (s *Service) addChat(p *plan, from sender, m *protocol.Message) {
	if m.BizOptModule != protocol.OpSend {
		p.refuse(from, protocol.CodeUnknownOp, "unknown bizOptModule of bizType 1")
		return
	}
	if m.ClientMsgID == "" || m.ReceivedUserID == "" || len(m.MsgBody) == 0 {
		p.refuse(from, protocol.CodeMissingField, "a chat message needs clientMsgId, receivedUserId and msgBody")
		return
	}
	if len(m.MsgBody) > s.bodyLimit {
		p.refuse(from, protocol.CodeBodyTooLarge, "msgBody is larger than the limit")
		return
	}
	if deeper(m.MsgBody, protocol.MaxDepth) {
		p.refuse(from, protocol.CodeMalformed, "msgBody is nested too deeply")
		return
	}
	to, err := userid.Parse(m.ReceivedUserID)
	if err != nil {
		p.refuse(from, protocol.CodeBadReceiver, "receivedUserId: "+err.Error())
		return
	}
	conv, members := direct(from.ev.User, to)
	p.effects = append(p.effects, effect{index: len(p.chats)})
	p.asked = append(p.asked, from)
	p.chats = append(p.chats, NewMessage{Conv: conv, Members: members, From: from.ev.User, CID: m.ClientMsgID,
		Type: messageType(m.BizType, m.BizOptModule), Body: m.MsgBody, TS: s.now().UnixMilli(), Trace: from.ev.Trace})
}

func (p *plan) refuse(from sender, code int, reason string) {
	p.countRefusal(code)
	p.effects = append(p.effects, effect{refusal: true, index: len(p.refusals)})
	p.refusals = append(p.refusals, from.refusal(code, reason, 0))
}

// lenientSender finds the ids in a frame that is no message object, so that the client
// can tell which of its sends was refused.
func lenientSender(ev *envelope.Event) sender {
	var fields map[string]json.RawMessage
	from := sender{ev: ev}
	if json.Unmarshal(ev.Data, &fields) != nil {
		return from
	}
	var cid, req string
	if json.Unmarshal(fields["clientMsgId"], &cid) == nil && len(cid) <= protocol.MaxClientMsgID && printable(cid) {
		from.clientMsgID = cid
	}
	if json.Unmarshal(fields["reqId"], &req) == nil && len(req) <= protocol.MaxReqID {
		from.reqID = req
	}
	return from
}

// deeper reports whether valid JSON has more than most objects and arrays inside each
// other. A page of history nests a body further, and readers have limits of their own.
func deeper(b []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// messageType is how bizType and bizOptModule are stored: bizType*1000 + bizOptModule.
func messageType(biz, op int) int32 { return int32(biz*1000 + op) }

// render is a stored message as clients see it.
func render(m StoredMessage) *protocol.Message {
	out := &protocol.Message{MsgType: protocol.Business, SendUserID: m.From.Raw(), BizType: int(m.Type / 1000),
		BizOptModule: int(m.Type % 1000), ConvID: m.Conv, Seq: m.Seq, TS: m.TS, ClientMsgID: m.CID, MsgBody: m.Body}
	if peer, ok := peerOf(m.Conv, m.From); ok {
		out.ReceivedUserID = peer.Raw()
	}
	return out
}
