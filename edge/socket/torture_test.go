package socket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
)

// Everything at once and at any moment: requests and frames in random pieces, peers that
// go in the middle, deliveries, resyncs, an uplink that answers late or fails. Nothing
// may be left at the end, and each connection's events keep their order.
func TestTorture(t *testing.T) {
	r := serve(t, func(c *socket.Config, r *rig) {
		r.up.auto = false
		c.Limits.Frame, c.Limits.Pending = 4<<10, 8<<10
		c.Times.Login, c.Times.Close, c.Times.Write = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithCancel(context.Background())
	var neighbours, clients sync.WaitGroup
	neighbours.Go(func() { answerUplink(ctx, t, r.up, rand.New(rand.NewPCG(seed, 1))) })
	neighbours.Go(func() { deliverAll(ctx, r.down, rand.New(rand.NewPCG(seed, 2))) })
	for i := range 16 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(10+i)))
			for n := range 60 {
				misbehave(r.addr, fmt.Sprintf("u%d-%d", i, n), rng)
			}
		})
	}
	clients.Wait()
	eventually(t, "nothing left", func() bool { return r.Connections() == 0 })
	eventually(t, "the buffers are back", func() bool { return r.metric("buffered_bytes") == 0 })
	if open := r.metric("connections"); open != 0 {
		t.Errorf("%v connections", open)
	}
	opened, ended := r.metric("handshakes_total"), r.metric("closed_total")
	if opened != ended || opened == 0 {
		t.Errorf("%v opened, %v closed", opened, ended)
	}
	accepted := r.metric("accepted_total")
	if other := r.metric("handshakes_refused_total") + r.metric("handshakes_lost_total"); accepted != opened+other {
		t.Errorf("%v accepted, %v opened, %v not", accepted, opened, other)
	}
	cancel()
	neighbours.Wait()
}

// answerUplink answers each event late, sometimes with an error, and checks that each
// connection has one at a time, Connected first and Disconnected last.
func answerUplink(ctx context.Context, t *testing.T, u *up, rng *rand.Rand) {
	last := map[string]published{}
	var waiting []published
	for {
		select {
		case ev := <-u.events:
			before, known := last[ev.Conn]
			switch {
			case !known && (ev.Type != envelope.Connected || ev.N != 1),
				known && before.Type == envelope.Disconnected && ev.Type != envelope.Disconnected,
				known && ev.N != before.N+1:
				t.Errorf("%s %d after %s %d", ev.Type, ev.N, before.Type, before.N)
			}
			for _, w := range waiting {
				if w.Conn == ev.Conn {
					t.Errorf("two events of %s at once", ev.Conn)
				}
			}
			last[ev.Conn] = ev
			waiting = append(waiting, ev)
			if rng.IntN(4) > 0 {
				continue
			}
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return
		}
		for _, w := range waiting {
			var err error
			if rng.IntN(50) == 0 {
				err = errors.New("stalled")
			}
			w.s.PublishDone(0, err)
		}
		waiting = waiting[:0]
	}
}

func deliverAll(ctx context.Context, d *down, rng *rand.Rand) {
	var all []downlink.Receiver
	data := []byte(`{"x":"` + strings.Repeat("x", 900) + `"}`)
	for seq := uint64(2); ; seq++ {
		select {
		case a := <-d.attaches:
			all = append(all, a.r)
		case <-d.detaches:
		case <-ctx.Done():
			return
		}
		for range 5 {
			if len(all) == 0 {
				break
			}
			r := all[rng.IntN(len(all))]
			switch rng.IntN(8) {
			case 0:
				r.Resync(token(seq))
			case 1:
				r.Moved(token(seq))
			default:
				r.Deliver(downlink.Frame{Data: data, At: token(seq)})
			}
		}
	}
}

// misbehave is one connection: a stream that is right up to a random point, in random
// pieces, whose end is random.
func misbehave(addr, user string, rng *rand.Rand) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if rng.IntN(4) > 0 {
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
	stream := []byte("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	stream = append(stream, frame(ws.OpText, true, `{"msgType":2,"msgBody":{"token":"`+user+`"}}`)...)
	for range rng.IntN(40) {
		stream = append(stream, anyFrame(rng)...)
	}
	if rng.IntN(5) == 0 {
		stream[rng.IntN(len(stream))] ^= byte(1 << rng.IntN(8))
	}
	if rng.IntN(3) == 0 {
		stream = stream[:rng.IntN(len(stream))]
	}
	for len(stream) > 0 {
		n := min(1+rng.IntN(1+rng.IntN(2000)), len(stream))
		if _, err := c.Write(stream[:n]); err != nil {
			return
		}
		stream = stream[n:]
	}
	switch rng.IntN(3) {
	case 0:
		_ = c.(*net.TCPConn).SetLinger(0)
	case 1:
		_, _ = c.Write(frame(ws.OpClose, true, "\x03\xe8"))
		_, _ = c.Read(make([]byte, 1))
	}
}

func anyFrame(rng *rand.Rand) []byte {
	switch rng.IntN(8) {
	case 0:
		return frame(ws.OpPing, true, "ping")
	case 1:
		return frame(ws.OpText, true, plain)
	case 2:
		return append(frame(ws.OpText, false, "é"), append(frame(ws.OpPing, true, ""), frame(ws.OpContinuation, true, "b")...)...)
	case 3:
		return frame(ws.OpText, true, `{"msgType":2,"msgBody":{"token":"refused"}}`)[:rng.IntN(2)*30]
	case 4:
		return frame(ws.OpText, true, strings.Repeat("x", rng.IntN(4200)))
	}
	return frame(ws.OpText, true, strings.Repeat("y", rng.IntN(300)))
}
