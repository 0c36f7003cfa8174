package janitor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/stream"
)

type fakeSessions struct {
	edges   []string
	dropped []string
}

func (f *fakeSessions) EdgesWithSessions(context.Context) ([]string, error) {
	return slices.Clone(f.edges), nil
}

func (f *fakeSessions) DropEdge(_ context.Context, edge string) (int, error) {
	f.dropped = append(f.dropped, edge)
	f.edges = slices.DeleteFunc(f.edges, func(e string) bool { return e == edge })
	return 3, nil
}

func TestOnlyAnEdgeWhoseMarkStandsStillIsDropped(t *testing.T) {
	marks := map[string]uint64{"alive": 1, "dead": 7, "unmarked": 0}
	var markErr error
	st := &fakeSessions{edges: []string{"alive", "dead", "unmarked"}}
	j := New(st, func(_ context.Context, e string) (uint64, error) { return marks[e], markErr },
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	now := time.Now()
	look := func(after time.Duration) {
		t.Helper()
		now = now.Add(after)
		marks["alive"]++
		if err := j.look(t.Context(), now); err != nil && markErr == nil {
			t.Fatal(err)
		}
	}
	look(0)
	look(stream.LeaseLost - time.Second)
	if len(st.dropped) != 0 {
		t.Fatalf("dropped %v too early", st.dropped)
	}
	markErr = errors.New("nats is away")
	look(time.Minute)
	if len(st.dropped) != 0 {
		t.Fatalf("dropped %v without knowing", st.dropped)
	}
	markErr = nil
	look(0)
	if !slices.Equal(st.dropped, []string{"dead", "unmarked"}) {
		t.Errorf("dropped %v, want dead and unmarked", st.dropped)
	}
}

// A mark that cannot be read keeps its edge, and not the others.
func TestAnUnreadableMarkHoldsNobodyElse(t *testing.T) {
	st := &fakeSessions{edges: []string{"a", "cursed", "dead"}}
	unreadable := errors.New("no stream matches subject")
	j := New(st, func(_ context.Context, e string) (uint64, error) {
		if e == "cursed" {
			return 0, unreadable
		}
		return 7, nil
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	now := time.Now()
	for range 2 {
		if err := j.look(t.Context(), now); !errors.Is(err, unreadable) {
			t.Errorf("look = %v, want it told", err)
		}
		now = now.Add(stream.LeaseLost)
	}
	if !slices.Equal(st.dropped, []string{"a", "dead"}) {
		t.Errorf("dropped %v, want a and dead", st.dropped)
	}
}

// What no edge can be called is not looked for: its sessions, if it has any, are of nobody.
func TestNoMarkOfWhatIsNoName(t *testing.T) {
	for _, name := range []string{"a.b", "*", ">", "", "a b"} {
		if seq, err := OnJetStream(nil, 1)(t.Context(), name); seq != 0 || err != nil {
			t.Errorf("%q: %d, %v", name, seq, err)
		}
	}
}
