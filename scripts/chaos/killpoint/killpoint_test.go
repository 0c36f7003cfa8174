package killpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/stream"
)

// The sends: some that are acknowledged before anything happens, then a pipelined series.
const (
	early  = 5
	series = 30
	total  = early + series
	victim = early + series/2 // index of the marked message
)

// death is a point, and what it promises of the marked message: how far it has come.
type death struct {
	at        point
	stored    bool
	published bool // to both members, which is the acknowledgement to the sender
	inLane    bool // so it will be delivered again
	cut       bool // the acks are cut right before or behind the marked one
}

var deaths = []death{
	{at: beforeInsert, inLane: true},
	{at: afterInsert, stored: true, inLane: true},
	{at: beforePublish, stored: true, inLane: true},
	{at: afterPublish, stored: true, published: true, inLane: true},
	{at: beforeAck, stored: true, published: true, inLane: true, cut: true},
	{at: afterAck, stored: true, published: true, cut: true},
}

// A worker dies at each point, another takes over: nothing is lost, doubled or out of
// order, whatever the dead one had done already.
func TestKillPoints(t *testing.T) {
	for name, store := range map[string]func(testing.TB) string{"ferretdb": servers.Ferret, "mongod": servers.Mongo} {
		for _, d := range deaths {
			t.Run(name+"/"+string(d.at), func(t *testing.T) {
				t.Parallel()
				s := start(t, store(t))
				ann, bob := s.connect("ann"), s.connect("bob")
				first := s.spawn("first", d.at)
				sends := sendAll(ann, bob)
				first.killed()

				left := s.look(sends)
				left.check(t)
				d.check(t, left)
				if t.Failed() {
					return // what is lost already would only be waited for
				}
				if d.published {
					if _, err := sends[victim].Wait(s.ctx); err != nil {
						t.Fatalf("what was published did not come to its sender: %v", err)
					}
				}

				second := s.spawn("second", "")
				s.verify(s.settled(sends), left.sent, ann, bob)
				s.verifyFrames(d, left.sent)
				second.stop()
			})
		}
	}
}

// sendAll sends from one device to another's user: the early ones are acknowledged and
// delivered before the others are sent.
func sendAll(from, to *device) []*client.Pending {
	t, ctx := from.s.t, from.s.ctx
	t.Helper()
	var sends []*client.Pending
	for i := range total {
		body := fmt.Sprintf(`"message %d"`, i)
		switch i {
		case early:
			body = fill
		case victim:
			body = marked
		case total - 1:
			body = last
		}
		p, err := from.Send(ctx, to.user, json.RawMessage(body))
		if err != nil {
			t.Fatalf("send: %v", err)
		}
		sends = append(sends, p)
		if i == early-1 {
			for _, p := range sends {
				if _, err := p.Wait(ctx); err != nil {
					t.Fatalf("an early send was not stored: %v", err)
				}
			}
			to.await(early)
		}
	}
	return sends
}

// remains are what a dead worker left behind, as clientMsgIds in the order of each place.
type remains struct {
	sent      []string
	inLane    []string
	acked     []string            // to the sender
	published map[string][]string // by user
	stored    []string
}

// look looks at the places against the way of a message, so that what moves meanwhile
// (the last acks of the dead) never looks like a loss.
func (s *system) look(sends []*client.Pending) remains {
	s.t.Helper()
	r := remains{inLane: idsOf(s.frames(stream.Up(0), "")), published: map[string][]string{}}
	for _, p := range sends {
		r.sent = append(r.sent, p.ClientMsgID)
		select {
		case <-p.Done():
			r.acked = append(r.acked, p.ClientMsgID)
		default:
		}
	}
	for _, user := range []string{"ann", "bob"} {
		r.published[user] = idsOf(s.published(user))
	}
	r.stored = s.stored()
	return r
}

// check checks what holds at every moment: stored comes before published, and published
// before the ack of the lane and that of the sender.
func (r remains) check(t *testing.T) {
	t.Helper()
	if len(r.stored) > len(r.sent) || !slices.Equal(r.stored, r.sent[:len(r.stored)]) {
		t.Errorf("the store holds %v, which is no beginning of what was sent: %v", r.stored, r.sent)
	}
	if len(r.acked) < early {
		t.Errorf("%d acknowledgements before the death, want at least %d", len(r.acked), early)
	}
	for i, id := range r.sent {
		for user, ids := range r.published {
			switch published := slices.Contains(ids, id); {
			case published && !slices.Contains(r.stored, id):
				t.Errorf("message %d was published to %s and is not stored", i, user)
			case !published && slices.Contains(r.acked, id):
				t.Errorf("message %d was acknowledged and not published to %s", i, user)
			case !published && !slices.Contains(r.inLane, id):
				t.Errorf("message %d is gone from the lane and was not published to %s", i, user)
			}
		}
	}
}

// check checks that the worker died where it should.
func (d death) check(t *testing.T, r remains) {
	t.Helper()
	id, before, behind := r.sent[victim], r.sent[victim-1], r.sent[victim+1]
	if got := slices.Contains(r.stored, id); got != d.stored {
		t.Errorf("the marked message is in the store: %v, want %v", got, d.stored)
	}
	for user, ids := range r.published {
		if got := slices.Contains(ids, id); got != d.published {
			t.Errorf("the marked message is published to %s: %v, want %v", user, got, d.published)
		}
	}
	if !d.published && slices.Contains(r.acked, id) {
		t.Error("the marked message is acknowledged")
	}
	if got := slices.Contains(r.inLane, id); got != d.inLane {
		t.Errorf("the marked message is in the lane: %v, want %v", got, d.inLane)
	}
	if d.cut && slices.Contains(r.inLane, before) {
		t.Error("the message before the marked one is in the lane, although its ack was written")
	}
	if !slices.Contains(r.inLane, behind) {
		t.Error("the message behind the marked one is not in the lane")
	}
}

// settled waits until every send is resolved, and returns the conversation. Each must
// have been stored in its place.
func (s *system) settled(sends []*client.Pending) (conv string) {
	s.t.Helper()
	for i, p := range sends {
		res, err := p.Wait(s.ctx)
		if err != nil {
			s.t.Fatalf("send %d was not stored: %v", i, err)
		}
		if res.Seq != int64(i+1) {
			s.t.Errorf("send %d was acknowledged with seq %d, want %d", i, res.Seq, i+1)
		}
		conv = res.ConvID
	}
	return conv
}

// verify checks that nothing is left over, and that what was sent is history, and what
// each device was delivered, once and in order.
func (s *system) verify(conv string, sent []string, devices ...*device) {
	t := s.t
	t.Helper()
	err := until(s.ctx, func(ctx context.Context) (bool, error) {
		all, err := scan(ctx, s.js, stream.Up(0))
		return len(all) == 0, err
	})
	if err != nil {
		t.Fatalf("the lane is not empty: %v", err)
	}
	if stored := s.stored(); !slices.Equal(stored, sent) {
		t.Errorf("the store holds %v, want %v", stored, sent)
	}
	if dead, err := scan(s.ctx, s.js, stream.Dead); err != nil || len(dead) > 0 {
		t.Errorf("%d dead messages, %v", len(dead), err)
	}
	for _, d := range devices {
		history := d.history(conv) // its answer comes behind every frame that was published before
		if ids := idsOf(history); !slices.Equal(ids, sent) {
			t.Fatalf("history is %v, want %v", ids, sent)
		}
		got := d.await(total)
		if len(got) != total {
			t.Errorf("%s was delivered %d messages, want %d", d.user, len(got), total)
		}
		for i, m := range history {
			if g := got[i]; g.ClientMsgID != m.ClientMsgID || g.Seq != m.Seq || m.Seq != int64(i+1) || string(g.Body) != string(m.MsgBody) {
				t.Errorf("%s was delivered at %d seq %d, %s %s; history has seq %d, %s %s", d.user, i,
					g.Seq, g.ClientMsgID, g.Body, m.Seq, m.ClientMsgID, m.MsgBody)
			}
		}
	}
}

// verifyFrames checks the frames of both workers: all of a message carry the same place,
// and a message that is worked again is published again to both members, because the
// second worker cannot know what the first one did. (A client would find a message that
// nobody published, but only when it misses it before another.)
func (s *system) verifyFrames(d death, sent []string) {
	t := s.t
	t.Helper()
	for _, user := range []string{"ann", "bob"} {
		copies := make([]int, len(sent))
		for _, f := range s.published(user) {
			i := slices.Index(sent, f.ClientMsgID)
			if i < 0 || f.Seq != int64(i+1) {
				t.Errorf("a frame to %s carries seq %d for message %d, want %d", user, f.Seq, i, i+1)
				continue
			}
			copies[i]++
		}
		for i, n := range copies {
			want := 1
			if i == victim && d.published && d.inLane {
				want = 2
			}
			if n < want {
				t.Errorf("message %d was published %d times to %s, want at least %d", i, n, user, want)
			}
		}
	}
}
