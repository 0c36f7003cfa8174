package socket

import "github.com/gobwas/ws"

// fault is a way to break RFC 6455 or a limit, with the close code that answers it
// (section 7.4.1) and one sentence for the close frame.
type fault struct {
	end  End
	text string
}

var (
	faultReserved        = &fault{EndFrame, "a reserved bit is set"}
	faultUnmasked        = &fault{EndFrame, "a frame from a client must be masked"}
	faultOpCode          = &fault{EndFrame, "reserved opcode"}
	faultControlFragment = &fault{EndFrame, "a control frame must not be fragmented"}
	faultControlSize     = &fault{EndFrame, "a control frame holds at most 125 bytes"}
	faultContinuation    = &fault{EndFrame, "a continuation without a message"}
	faultInterleaved     = &fault{EndFrame, "a new message inside a fragmented one"}
	faultLength          = &fault{EndFrame, "a length that is not minimal, or over 63 bits"}
	faultClosePayload    = &fault{EndFrame, "a close frame without a proper code"}
	faultUTF8            = &fault{EndText, "text must be valid UTF-8"}
	faultTooLarge        = &fault{EndTooLarge, "the message is larger than maxFrame"}
	faultFragments       = &fault{EndTooLarge, "the message has too many fragments"}
	faultBinary          = &fault{EndBinary, "messages are JSON text"}
	faultSlowMessage     = &fault{EndSlowMessage, "the message took too long to arrive"}
	faultMemory          = &fault{EndMemory, "this edge is short of memory, reconnect"}
)

// registeredSince are the close codes that came into IANA's registry (RFC 6455 section
// 11.7) after the RFC: service restart, try again later, bad gateway. gobwas/ws knows the
// RFC's own alone.
var registeredSince = ws.StatusCodeRange{Min: 1012, Max: 1014}

// closePayload checks the body of a close frame and returns its code, 1005 if it has none.
func closePayload(b []byte) (ws.StatusCode, *fault) {
	if len(b) == 0 {
		return ws.StatusNoStatusRcvd, nil
	}
	if len(b) == 1 {
		return 0, faultClosePayload
	}
	code, reason := ws.ParseCloseFrameDataUnsafe(b)
	if code > ws.StatusRangePrivate.Max {
		return 0, faultClosePayload
	}
	checked := code
	if code.In(registeredSince) {
		checked = ws.StatusNormalClosure // then the reason is looked at alone
	}
	switch err := ws.CheckCloseFrameData(checked, reason); err {
	case nil:
		return code, nil
	case ws.ErrProtocolInvalidUTF8:
		return 0, faultUTF8
	default:
		return 0, faultClosePayload
	}
}
