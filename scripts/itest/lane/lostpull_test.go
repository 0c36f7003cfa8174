package lane_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wirepost/wirepost/worker/streams"
)

// A worker's request for messages is lost on the way, as when a route between two servers
// is cut, and nothing tells it; those by which it keeps its pin are answered. It asks
// again: a lane whose owner waits for ever is nobody's.
func TestLostPullsAreSentAgain(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 1})
	net := newSieve(t, s.server.Server().Addr().String())
	st := newStore()
	w := s.startOn(s.connect(net.url()), "w1", &business{st: st})
	p := s.sender(users(2)...)
	p.send(10)
	st.await(s, p.total())
	var lost atomic.Int64
	net.dropAll(func(line, payload string) bool {
		pull := strings.Contains(line, "CONSUMER.MSG.NEXT") && !strings.Contains(payload, `"max_bytes":1,`)
		if pull {
			lost.Add(1)
		}
		return pull
	})
	eventually(s, "two pulls are lost", func() bool { return lost.Load() >= 2 })
	p.send(10)
	net.dropAll(nil)
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	if n := w.metric(t, takeOvers); n > 1 {
		t.Errorf("%v take-overs: the lane was not kept", n)
	}
}
