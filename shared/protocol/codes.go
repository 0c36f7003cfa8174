package protocol

// Codes of a refusal (Message.Code) and of a notice. 1000–1999 are permanent: the same
// bytes will be refused again. 2000–2999 are temporary: RetryAfterMs says when to send
// the same bytes again. 3000–3999 are notices. Never renumbered; a client treats an
// unknown code by its thousand.
const (
	CodeMalformed       = 1000 // not a JSON object, or a field of the wrong type
	CodeUnknownMsgType  = 1001
	CodeUnknownBizType  = 1002
	CodeUnknownOp       = 1003 // bizOptModule
	CodeMissingField    = 1004
	CodeBadReceiver     = 1005 // receivedUserId is no user id
	CodeBodyTooLarge    = 1006
	CodeForeignSender   = 1007 // sendUserId is not the connection's user
	CodeClientMsgReused = 1008 // clientMsgId was used with another payload or receiver
	CodeForbidden       = 1009 // not the user's conversation
	CodeBadField        = 1010 // reqId or clientMsgId is too long, or clientMsgId is not printable ASCII
	CodeNotStorable     = 1011 // the store will never take this message

	CodeUnavailable = 2000 // the store is away; what was sent is kept and tried again

	NoticeDrain       = 3000 // the edge goes away: reconnect within RetryAfterMs
	NoticeResync      = 3001 // what was missed is not known: sync by conversation
	NoticeTokenExpiry = 3002 // the token expires in RetryAfterMs: log in again on this connection
)

// Permanent reports whether a refusal with this code is final.
func Permanent(code int) bool { return 1000 <= code && code < 2000 }

// WebSocket close codes of the gateway (RFC 6455 section 7.4.2 leaves 4000–4999 to
// applications). 4000–4499: reconnect with backoff and full jitter. 4500–4999: do not.
// Never renumbered.
const (
	CloseDrain         = 4000 // the edge goes away
	CloseUplinkStalled = 4001 // a frame was not stored in time, or what was sent before it may be lost: send again, in order, on a new connection
	CloseNotAttached   = 4002 // the downlink could not be set up in time
	ClosePingTimeout   = 4003 // nothing was heard for 2.5 heartbeat intervals
	CloseTokenExpired  = 4401 // get a new token, then reconnect
	CloseSlowReader    = 4408 // the socket could not keep up; resume repairs it
	CloseLoginTimeout  = 4409 // no login within 5 s
	CloseTooMany       = 4429 // too many connections of this user on this edge

	CloseTokenRefused = 4501 // the token is not for this gateway, or not for the user of the path
	CloseNotLogin     = 4502 // the first frame was no login
)

// Reconnect reports what a client does after a close code: whether it connects again,
// and whether it gets a new token before. Unknown codes, 1006 and 1011–1015 reconnect;
// 1002, 1003 and 1007 say that this client is broken and stop.
func Reconnect(code int) (again, newToken bool) {
	switch {
	case code == CloseTokenExpired:
		return true, true
	case 4500 <= code && code <= 4999:
		return false, false
	case code == 1002, code == 1003, code == 1007:
		return false, false
	}
	return true, false
}
