package peer

import (
	"context"
	"net/http"

	"github.com/centrifugal/centrifuge"
)

// Everybody is the channel of Fanout mode.
const Everybody = "everybody"

// serveCentrifuge speaks centrifuge's own JSON protocol: connect, then calls (which answer
// with what they bring), or publications to a channel that everybody has subscribed to at
// the connect. In Echo mode each client has a channel of its own, as a user of ours has.
// Its server-side pings are off: the load generator pings each server alike.
func serveCentrifuge(m Mode, addr string) error {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return err
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		channel := Everybody
		if m == Echo {
			channel = e.ClientID
		}
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: e.ClientID},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnRPC(func(e centrifuge.RPCEvent, reply centrifuge.RPCCallback) {
			reply(centrifuge.RPCReply{Data: e.Data}, nil)
		})
		c.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
			reply(centrifuge.PublishReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return err
	}
	http.Handle("/ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		UseWriteBufferPool: true,
		PingPongConfig:     centrifuge.PingPongConfig{PingInterval: -1},
	}))
	return http.ListenAndServe(addr, nil)
}
