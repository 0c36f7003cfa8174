package balancers

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/protocol"
)

// quiet is longer than any timeout in the shipped configurations.
const quiet = 78 * time.Second

// A socket lives for as long as it sends heartbeats, or answers pings. One that does neither
// is closed by its edge, which says why: no balancer is quicker.
func TestSilence(t *testing.T) {
	t.Parallel()
	onEachWay(t, shared, func(t *testing.T, r *road) {
		var all sync.WaitGroup
		for kind, beats := range map[string]time.Duration{"heartbeats": 25 * time.Second, "pongs": 0} {
			all.Go(func() {
				if err := stays(r, token(t, r.slug()+"-"+kind), beats); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			})
		}
		all.Go(func() {
			if err := isToldToGo(r, token(t, r.slug()+"-mute")); err != nil {
				t.Errorf("mute: %v", err)
			}
		})
		all.Wait()
	})
}

// stays lets a client send a heartbeat now and then, or answer pings when it sends none, and
// asks it at the end whether it is still there.
func stays(r *road, tok string, beats time.Duration) error {
	p, err := r.login(context.Background(), tok, nil)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	began := time.Now()
	end := time.NewTimer(quiet)
	defer end.Stop()
	beat := make(<-chan time.Time)
	if beats > 0 {
		tick := time.NewTicker(beats)
		defer tick.Stop()
		beat = tick.C
	}
	frames, gone := make(chan ws.Frame, 16), make(chan error, 1)
	go func() {
		for {
			f, err := p.next()
			if err != nil {
				gone <- err
				return
			}
			frames <- f
		}
	}()
	for asked := false; ; {
		err = nil
		select {
		case err := <-gone:
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		case f := <-frames:
			switch {
			case f.Header.OpCode == ws.OpClose:
				return fmt.Errorf("after %v: closed with %q", time.Since(began), f.Payload)
			case f.Header.OpCode == ws.OpPing && beats == 0:
				err = p.send(ws.OpPong, f.Payload)
			case asked && bytes.Contains(f.Payload, []byte(`"msgType":1`)):
				return nil
			}
		case <-beat:
			err = p.send(ws.OpText, []byte(plainHeartbeat))
		case <-end.C:
			asked = true
			end.Reset(10 * time.Second) // for the answer
			if time.Since(began) > quiet+5*time.Second {
				return fmt.Errorf("after %v: no answer", time.Since(began))
			}
			err = p.send(ws.OpText, []byte(plainHeartbeat))
		}
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		}
	}
}

// isToldToGo lets a client be silent, and wants the edge's word for it.
func isToldToGo(r *road, tok string) error {
	p, err := r.login(context.Background(), tok, nil)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	began := time.Now()
	_ = p.SetReadDeadline(began.Add(quiet))
	for {
		f, err := p.next()
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		}
		if f.Header.OpCode == ws.OpClose {
			if code, reason := ws.ParseCloseFrameData(f.Payload); int(code) != protocol.ClosePingTimeout {
				return fmt.Errorf("after %v: closed with %d %q", time.Since(began), code, reason)
			}
			return nil
		}
	}
}
