// Package envelope writes and reads the headers around a payload on NATS: CloudEvents
// 1.0 in binary mode (lower case, prefix "ce-"), few and short.
//
// It never looks into a payload.
package envelope

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// Header names. A reader ignores what it does not know and gives every missing
// optional header its zero value, so that edges and workers roll out independently.
const (
	hVersion = "ce-specversion" // "1.0"
	hID      = "ce-id"          // unique within the source: the connection's event number
	hType    = "ce-type"        // one of the Type constants
	hSource  = "ce-source"      // "/edges/<edge>/conns/<conn>"
	hTime    = "ce-time"        // RFC 3339, UTC, milliseconds: when the edge had the whole frame
	hReason  = "ce-reason"      // extension; why a connection ended, or why a message is dead
	hAfter   = "ce-after"       // extension; Event.After in decimal

	// Target is a header of a downlink frame: the connection that it is for. A frame
	// without it is for all devices of the user.
	Target = "ce-conn"
)

// Type is the kind of an uplink event.
type Type string

// The kinds of uplink events. New kinds may be added; a worker acknowledges and
// counts a kind that it does not know.
const (
	Connected    Type = "im.connected"    // payload: Hello as JSON
	Frame        Type = "im.frame"        // payload: the client's frame, as it came
	Disconnected Type = "im.disconnected" // no payload; Reason says why
)

// Reasons of a Disconnected event.
const (
	ReasonClientClose = "client_close"
	ReasonPingTimeout = "ping_timeout"
	ReasonSlow        = "slow"
	ReasonKicked      = "kicked"
	ReasonExpired     = "expired"
	ReasonDrain       = "drain"
	ReasonEdgeLost    = "edge_lost"
	ReasonProtocol    = "protocol" // the peer broke RFC 6455 or the client protocol
	ReasonUplink      = "uplink"   // a frame was not stored in time
)

// Hello is the payload of a Connected event.
type Hello struct {
	DeviceID string `json:"deviceId,omitempty"` // as the client named it, ≤ 128 bytes
	Addr     string `json:"addr,omitempty"`     // the client's address, as the edge or a proxy that it trusts saw it
}

// Event is one uplink message.
type Event struct {
	User   userid.ID // from the subject, never from a header
	Type   Type
	Edge   string // the edge's name, a plain token of 1 to 64 bytes
	Conn   string // the connection's id, a plain token of 1 to 78 bytes
	N      uint64 // counts the connection's events from 1
	Time   time.Time
	Reason string // of a Disconnected event
	Trace  string // a valid traceparent; "": none
	// After is the incarnation of the lane (stream.Incarnation) in which the connection's
	// frame before this event was stored; 0: there was none, or it is not known.
	After uint32
	Data  []byte // the payload
}

// ID is unique within the event's source: <conn>-<n>.
func (e *Event) ID() string { return e.Conn + "-" + strconv.FormatUint(e.N, 10) }

// ErrMalformed is returned when a header that must be there is missing or unreadable.
var ErrMalformed = errors.New("malformed event headers")

// maxConn is the length of the longest connection id: an edge's name, "-" and a number of
// 64 bits in base 36.
const maxConn = subject.MaxEdge + 1 + 13

const timeLayout = "2006-01-02T15:04:05.000Z"

// Header returns the NATS headers of e. The caller owns the map, which can be used as
// a nats.Header as it is; this package does not import nats, nor does who uses it.
func (e Event) Header() map[string][]string {
	h := make(map[string][]string, 8)
	values := make([]string, 0, 8) // of all headers: one allocation
	add := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	add(hVersion, "1.0")
	add(hID, e.ID())
	add(hType, string(e.Type))
	add(hSource, "/edges/"+e.Edge+"/conns/"+e.Conn)
	add(hTime, e.Time.UTC().Format(timeLayout))
	if e.After != 0 {
		add(hAfter, strconv.FormatUint(uint64(e.After), 10))
	}
	if e.Reason != "" {
		add(hReason, e.Reason)
	}
	if e.Trace != "" {
		add(TraceParent, e.Trace)
	}
	return h
}

// Parse reads the headers of an uplink message; User and Data are left to the caller.
// Time is zero when it is missing or unreadable: it is for measurement alone.
func Parse(h map[string][]string) (Event, error) {
	e := Event{Type: Type(first(h, hType)), Reason: first(h, hReason)}
	if trace := first(h, TraceParent); ValidTraceParent(trace) {
		e.Trace = trace
	}
	if e.Type == "" {
		return Event{}, fmt.Errorf("%w: no %s", ErrMalformed, hType)
	}
	part := strings.Split(first(h, hSource), "/")
	if len(part) != 5 || part[1] != "edges" || part[3] != "conns" || !subject.Plain(part[2], subject.MaxEdge) || !subject.Plain(part[4], maxConn) {
		return Event{}, fmt.Errorf("%w: %s", ErrMalformed, hSource)
	}
	e.Edge, e.Conn = part[2], part[4]
	if n, ok := strings.CutPrefix(first(h, hID), e.Conn+"-"); ok {
		e.N, _ = strconv.ParseUint(n, 10, 64)
	}
	if after := first(h, hAfter); after != "" { // most have it; an error for those that have not would be an allocation
		if n, err := strconv.ParseUint(after, 10, 32); err == nil {
			e.After = uint32(n)
		}
	}
	e.Time, _ = time.Parse(timeLayout, first(h, hTime))
	return e, nil
}

// WithReason adds the reason why a message is dead to its headers, in place, and takes off
// what held in its lane alone: a dead message that is published again is a new one.
func WithReason(h map[string][]string, reason string) map[string][]string {
	if h == nil {
		h = map[string][]string{}
	}
	h[hReason] = []string{reason}
	delete(h, hAfter)
	return h
}

func first(h map[string][]string, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}
