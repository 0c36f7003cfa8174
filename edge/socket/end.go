package socket

import (
	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

// End is why a connection ended: a closed set, one counter each, never renumbered
// within a process only.
type End uint8

// The ends of a connection whose handshake was accepted.
const (
	EndNone         End = iota
	EndClient           // the peer sent a close frame
	EndLost             // the peer went without one
	EndSilent           // nothing was heard for 2.5 intervals
	EndSlow             // the reader could not keep up
	EndSlowMessage      // a message took too long to arrive
	EndExpired          // the token expired
	EndDrain            // the edge goes away
	EndStalled          // a frame was not stored in time
	EndRenewed          // the uplink's lane is a new one, what the client sent before may be gone
	EndNotAttached      // the downlink was not set up in time
	EndTooMany          // too many connections of this user
	EndLoginTimeout     // no login in time
	EndNotLogin         // the first frame was no login
	EndRefused          // the token was refused for good
	EndNoVerdict        // the token could not be verified now
	EndFrame            // RFC 6455 was broken
	EndBinary           // a binary message
	EndText             // text that is not UTF-8
	EndTooLarge         // a message over a limit
	EndMemory           // the edge is short of memory
	EndGaveWay          // had not logged in when another needed its place
	endCount
)

// endFacts is what is known of an End: the close code that it sends (0: none), its name
// in the counter, and the reason in the Disconnected event.
type endFacts struct {
	code   ws.StatusCode
	name   string
	reason string
}

var ends = [endCount]endFacts{
	EndNone:         {0, "none", ""},
	EndClient:       {0, "client", envelope.ReasonClientClose},
	EndLost:         {0, "lost", envelope.ReasonClientClose},
	EndSilent:       {protocol.ClosePingTimeout, "ping_timeout", envelope.ReasonPingTimeout},
	EndSlow:         {protocol.CloseSlowReader, "slow_reader", envelope.ReasonSlow},
	EndSlowMessage:  {ws.StatusPolicyViolation, "slow_message", envelope.ReasonSlow},
	EndExpired:      {protocol.CloseTokenExpired, "token_expired", envelope.ReasonExpired},
	EndDrain:        {protocol.CloseDrain, "drain", envelope.ReasonDrain},
	EndStalled:      {protocol.CloseUplinkStalled, "uplink_stalled", envelope.ReasonUplink},
	EndRenewed:      {protocol.CloseUplinkStalled, "uplink_renewed", envelope.ReasonUplink},
	EndNotAttached:  {protocol.CloseNotAttached, "not_attached", envelope.ReasonUplink},
	EndTooMany:      {protocol.CloseTooMany, "too_many", envelope.ReasonKicked},
	EndLoginTimeout: {protocol.CloseLoginTimeout, "login_timeout", envelope.ReasonProtocol},
	EndNotLogin:     {protocol.CloseNotLogin, "not_login", envelope.ReasonProtocol},
	EndRefused:      {protocol.CloseTokenRefused, "token_refused", envelope.ReasonProtocol},
	EndNoVerdict:    {1013, "no_verdict", envelope.ReasonUplink}, // try again later
	EndFrame:        {ws.StatusProtocolError, "bad_frame", envelope.ReasonProtocol},
	EndBinary:       {ws.StatusUnsupportedData, "binary", envelope.ReasonProtocol},
	EndText:         {ws.StatusInvalidFramePayloadData, "bad_text", envelope.ReasonProtocol},
	EndTooLarge:     {ws.StatusMessageTooBig, "too_large", envelope.ReasonProtocol},
	EndMemory:       {1013, "memory", envelope.ReasonSlow}, // try again later
	EndGaveWay:      {1013, "gave_way", envelope.ReasonProtocol},
}

// framing reports whether the peer broke the protocol itself, so that what it sends
// behind cannot be read as frames any more.
func (e End) framing() bool {
	switch e {
	case EndFrame, EndText, EndTooLarge, EndMemory, EndSlowMessage:
		return true
	}
	return false
}
