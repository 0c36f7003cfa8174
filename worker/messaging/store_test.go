package messaging

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
)

func TestWhatTheStoreNeverTakesIsRefusedAndDead(t *testing.T) {
	s, st, out := setup(t)
	st.refuses = "c2"
	dead, err := s.Work(t.Context(), []envelope.Event{send(ann, "bob", "c1", `1`), send(ann, "bob", "c2", `2`), send(ann, "bob", "c3", `3`)})
	if err != nil || len(dead) != 1 || dead[0].Index != 1 || !strings.Contains(dead[0].Reason, "too deep") {
		t.Fatalf("dead %+v, %v", dead, err)
	}
	frames := out.take()
	if len(frames) != 5 {
		t.Fatalf("%d frames", len(frames))
	}
	if m := decode(t, frames[2]); m.Code != protocol.CodeNotStorable || m.ClientMsgID != "c2" || frames[2].Conn == "" {
		t.Errorf("refusal %+v", m)
	}
	if m := decode(t, frames[3]); m.Seq != 2 || m.ClientMsgID != "c3" {
		t.Errorf("the next message %+v", m)
	}
}

func TestStoreAwayAdvisesTheSenderOnce(t *testing.T) {
	s, st, out := setup(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	st.err = errors.New("no primary")
	batch := []envelope.Event{send(ann, "bob", "c1", `1`), send(bob, "ann", "c1", `1`)}
	for range 3 {
		if _, err := s.Work(t.Context(), batch); err == nil {
			t.Fatal("Work returned nil without a store")
		}
	}
	if n := len(out.replies); n != 2 {
		t.Fatalf("%d advices, want one for each sender", n)
	}
	m := decode(t, <-out.replies)
	if m.Code != protocol.CodeUnavailable || m.ClientMsgID != "c1" {
		t.Errorf("advice %+v", m)
	}
	if wait := time.Duration(m.RetryAfterMs) * time.Millisecond; wait < 2*adviseEvery { // [r]
		t.Errorf("told to repeat after %v, sooner than the next advice but one: what is kept would come twice", wait)
	}
	<-out.replies
	now = now.Add(adviseEvery)
	_, _ = s.Work(t.Context(), batch)
	if n := len(out.replies); n != 2 {
		t.Errorf("%d advices after %v, want 2", n, adviseEvery)
	}
	st.err = nil
	work(t, s, batch...)
	if len(out.take()) != 4 {
		t.Error("not delivered after the store is back")
	}
	now = now.Add(adviseEvery)
	if s.notAdvised(&plan{}); len(s.advised) != 0 {
		t.Errorf("advice is remembered for ever: %v", s.advised)
	}
}

func TestSlowStoreGetsSmallerPortions(t *testing.T) {
	s, st, _ := setup(t)
	s.patience, st.slow = time.Millisecond, 3
	var batch []envelope.Event
	for i := range 40 {
		batch = append(batch, send(ann, "bob", fmt.Sprint("c", i), `1`))
	}
	for tries := 1; ; tries++ {
		if _, err := s.Work(t.Context(), batch); err == nil {
			break
		}
		if tries > 20 {
			t.Fatal("the batch is never committed")
		}
	}
	if n := len(st.convs["d:ann:bob"]); n != 40 {
		t.Errorf("%d messages stored", n)
	}
	st.slow = 0
	for range 12 {
		work(t, s, batch...)
	}
	if s.portion.Load() < 40 {
		t.Errorf("portions stay at %d although the store is fast again", s.portion.Load())
	}
}

func TestStoreThatIsAwayDoesNotShrinkPortions(t *testing.T) {
	s, st, _ := setup(t)
	st.err = errors.New("connection refused")
	_, _ = s.Work(t.Context(), []envelope.Event{send(ann, "bob", "c1", `1`)})
	if s.portion.Load() != maxPortion {
		t.Errorf("portion %d", s.portion.Load())
	}
}

func TestSessionsThatCannotBeStoredAdviseTheSendersToo(t *testing.T) {
	s, st, out := setup(t)
	st.err = errors.New("no primary")
	hello := envelope.Event{User: bob, Type: envelope.Connected, Edge: "e1", Conn: "c1"}
	if _, err := s.Work(t.Context(), []envelope.Event{hello, send(ann, "bob", "c1", `1`)}); err == nil {
		t.Fatal("Work returned nil without a store")
	}
	if len(out.replies) != 1 {
		t.Errorf("%d advices", len(out.replies))
	}
}
