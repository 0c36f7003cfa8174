package socket

import "github.com/wirepost/wirepost/edge/downlink"

// message is what other goroutines tell a loop about one connection (c), or about all of
// them (c is nil).
type message struct {
	c           *Conn
	kind        kind
	resumed     bool
	incarnation uint32 // of the lane in which the event was stored
	at          downlink.Token
	data        []byte // shared with other connections, read only
	echoes      int64  // see downlink.Frame
	err         error
	verdict     *verdict
}

type kind uint8

const (
	mPublished kind = iota
	mVerified
	mAttached
	mAttachFailed
	mDeliver
	mMoved
	mResync
	mRetry // of Disconnected
	mDrain // all
	mCut   // all
	mPaid  // all: see goOn
)

// The methods below are what the neighbours call, on goroutines of their own. None
// blocks, and none touches anything but the loop's mailbox.

// PublishDone is uplink.Sender.
func (c *Conn) PublishDone(incarnation uint32, err error) {
	c.k.loop.Post(message{c: c, kind: mPublished, incarnation: incarnation, err: err})
}

// Attached is downlink.Receiver.
func (c *Conn) Attached(resumed bool, at downlink.Token) {
	c.k.loop.Post(message{c: c, kind: mAttached, resumed: resumed, at: at})
}

// AttachFailed is downlink.Receiver.
func (c *Conn) AttachFailed(err error) { c.k.loop.Post(message{c: c, kind: mAttachFailed, err: err}) }

// Deliver is downlink.Receiver.
func (c *Conn) Deliver(f downlink.Frame) {
	c.k.loop.Post(message{c: c, kind: mDeliver, data: f.Data, at: f.At, echoes: f.Echoes})
}

// Moved is downlink.Receiver.
func (c *Conn) Moved(at downlink.Token) { c.k.loop.Post(message{c: c, kind: mMoved, at: at}) }

// Resync is downlink.Receiver.
func (c *Conn) Resync(at downlink.Token) { c.k.loop.Post(message{c: c, kind: mResync, at: at}) }

func (c *Conn) verified(v *verdict) {
	c.k.loop.Post(message{c: c, kind: mVerified, verdict: v})
}
