package socket

import (
	"context"

	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/userid"
)

// Verifier says whose token it is. Verify may block, is called on the room's own pool,
// and returns an *auth.Refusal for what is wrong with the token.
type Verifier interface {
	Verify(ctx context.Context, token string) (auth.Identity, error)
}

// Uplink takes what connections send. It never blocks, calls PublishDone once for each
// Publish, and owns ev.Data until then. The room keeps to one unfinished Publish for
// each connection.
type Uplink interface {
	Publish(s uplink.Sender, ev envelope.Event)
}

// Downlink finds out what a connection is to be sent. Neither method blocks. After
// Attach it calls the receiver's methods on goroutines of its own; after Detach such a
// call may still be on its way and is ignored.
type Downlink interface {
	Attach(r downlink.Receiver, user userid.ID, connID, resume string)
	Detach(r downlink.Receiver, user userid.ID)
}
