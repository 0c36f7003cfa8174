package client

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"
)

// Defaults of Options.
const (
	DefaultAckTimeout  = 10 * time.Second
	DefaultMaxBackoff  = 30 * time.Second
	DefaultOutboxLimit = 10_000
	DefaultEventBuffer = 1024
)

// Options says how a client connects. URLs and Token are needed, the rest has defaults.
type Options struct {
	// URLs are the gateway's addresses ("ws://host:port/ws", "wss://…"); the client
	// begins at a random one and goes on to the next at each reconnect.
	URLs []string
	// Token returns a fresh token. It is called before the first login, before the
	// token expires, and when the gateway says that it has expired; the client keeps
	// the token between. It may block; ctx ends after 30 s or with Run.
	Token func(ctx context.Context) (string, error)
	// BearerLogin sends the token in the handshake (Authorization: Bearer) instead of a
	// login frame. A handshake carries no resume token, so every reconnect syncs.
	BearerLogin bool
	// User is the user's id. Empty: the gateway takes it from the token.
	User string
	// DeviceID names this device (≤ 128 bytes) in the user's list of sessions.
	DeviceID string
	// State is what State returned in an earlier life; nil is a fresh client.
	State *State
	// FromStart makes a fresh client deliver all of history first.
	FromStart bool

	// NetDial replaces the TCP dial; Header is added to the handshake (Origin, …).
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	Header  http.Header

	HeartbeatInterval time.Duration // 0: as the gateway says
	AckTimeout        time.Duration // a send without its echo is sent again after this; doubles up to 5 min
	MaxBackoff        time.Duration // the longest wait before a reconnect; the wait is random below
	OutboxLimit       int           // sends that wait for their echo; when full, Send waits
	EventBuffer       int           // events that wait for the reader; when full, the socket is not read

	Log *slog.Logger // nil: silent
}

// State is what a client needs to go on where it was: after a restart, on another edge,
// after any time. It is a consistent snapshot of what was handed to the event channel:
// a message is either before its cursor, or will be delivered by the next client that
// starts with it. It marshals to JSON.
type State struct {
	// Cursors holds the seq of the last message delivered of each conversation; nil
	// until the client has learnt where the conversations end.
	Cursors map[string]int64 `json:"cursors"`
	// Resume is the gateway's token that belongs to Cursors.
	Resume string `json:"resume,omitempty"`
	// Outbox holds the sends that are neither stored nor refused, in order, and those
	// whose Stored or Refused was not read from the event channel yet: the next client
	// sends them again, which is harmless, and tells.
	Outbox []Outgoing `json:"outbox,omitempty"`
}

// Outgoing is a send on its way. Frame is repeated byte for byte until it is resolved: in
// JSON it is base64, for encoding/json would write a JSON text in another way.
type Outgoing struct {
	ClientMsgID string `json:"clientMsgId"`
	Frame       []byte `json:"frame"`
}

// UnmarshalJSON reads what this or an earlier version wrote: that had the frame as a JSON
// object.
func (o *Outgoing) UnmarshalJSON(b []byte) error {
	var raw struct {
		ClientMsgID string          `json:"clientMsgId"`
		Frame       json.RawMessage `json:"frame"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	o.ClientMsgID, o.Frame = raw.ClientMsgID, raw.Frame
	if len(raw.Frame) > 0 && raw.Frame[0] == '"' {
		return json.Unmarshal(raw.Frame, &o.Frame)
	}
	return nil
}

var (
	errNoURL   = errors.New("client options: no URL")
	errNoToken = errors.New("client options: no Token")
)

func (o Options) withDefaults() (Options, error) {
	if len(o.URLs) == 0 {
		return o, errNoURL
	}
	if o.Token == nil {
		return o, errNoToken
	}
	o.URLs = slices.Clone(o.URLs)
	o.AckTimeout = positive(o.AckTimeout, DefaultAckTimeout)
	o.MaxBackoff = positive(o.MaxBackoff, DefaultMaxBackoff)
	o.OutboxLimit = positive(o.OutboxLimit, DefaultOutboxLimit)
	o.EventBuffer = positive(o.EventBuffer, DefaultEventBuffer)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}
