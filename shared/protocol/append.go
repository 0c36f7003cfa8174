package protocol

import (
	"encoding/json"
	"strconv"
)

// Append appends m as one JSON object to b and returns the extended buffer. MsgBody is
// copied as it is, byte for byte: it must be valid JSON. The object starts with
// `{"msgType"`, or with `{"resume"` when Resume is set.
func (m *Message) Append(b []byte) []byte {
	b = append(b, '{')
	if m.Resume != "" {
		b = append(AppendString(append(b, `"resume":`...), m.Resume), ',')
	}
	b = strconv.AppendInt(append(b, `"msgType":`...), int64(m.MsgType), 10)
	b = appendStringField(b, "sendUserId", m.SendUserID)
	b = appendStringField(b, "receivedUserId", m.ReceivedUserID)
	b = appendIntField(b, "bizType", int64(m.BizType))
	b = appendIntField(b, "bizOptModule", int64(m.BizOptModule))
	b = appendStringField(b, "convId", m.ConvID)
	b = appendIntField(b, "seq", m.Seq)
	b = appendIntField(b, "ts", m.TS)
	b = appendStringField(b, "clientMsgId", m.ClientMsgID)
	b = appendStringField(b, "reqId", m.ReqID)
	b = appendIntField(b, "code", int64(m.Code))
	b = appendStringField(b, "reason", m.Reason)
	b = appendIntField(b, "retryAfterMs", m.RetryAfterMs)
	if len(m.MsgBody) > 0 {
		b = append(append(b, `,"msgBody":`...), m.MsgBody...)
	}
	return append(b, '}')
}

func appendStringField(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), key...), `":`...)
	return AppendString(b, value)
}

func appendIntField(b []byte, key string, value int64) []byte {
	if value == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), key...), `":`...)
	return strconv.AppendInt(b, value, 10)
}

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, as in
// encoding/json.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
