package stage_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/stage"
	"github.com/wirepost/wirepost/scripts/load/standin"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// TestMain makes this test program an agent when crew starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == crew.Argument {
		if agent.Run(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const tick = 50 * time.Millisecond

func start(t *testing.T, url string, n int) *stage.Stage {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := crew.Start([]string{exe}, []agent.Plan{{
		URLs: []string{url}, Traffic: agent.Pairs, Run: "t", Conns: n, Secret: strings.Repeat("s", 32), InFlight: 8, Size: 64, Tick: tick,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &stage.Stage{Crew: c, Conns: n, Processes: 1, Tick: tick}
}

// Where nobody can log in, a run ends, and says why.
func TestOpenGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := start(t, "ws://"+l.Addr().String()+"/", 10)
	s.Patience = time.Second
	err = s.Open(t.Context(), 10)
	if !errors.Is(err, stage.ErrStuck) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("open: %v", err)
	}
}

// All are back only when each has logged in again, and what was lost is counted.
func TestCrash(t *testing.T) {
	g := standin.Start(t, nil)
	s := start(t, g.URL, 10)
	if err := s.Open(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	c, err := s.Crash(t.Context(), func() (int, error) { g.CloseAll(); return 3, nil })
	if err != nil || c.Killed != 3 || c.Dropped != 10 || c.Back <= 0 || c.Back > 10 {
		t.Errorf("crash %+v, %v", c, err)
	}
	if st := s.Crew.State(); st.Counts[tally.Logins] != 20 || st.Counts[tally.Online] != 10 {
		t.Errorf("counts %v", st.Counts)
	}
}

// Settle waits for what is under way, but not for what is lost.
func TestSettle(t *testing.T) {
	g := standin.Start(t, func(n int) standin.Fault {
		if n == 5 {
			return standin.LoseAll
		}
		return standin.None
	})
	s := start(t, g.URL, 10)
	if err := s.Open(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(100, 20); err != nil {
		t.Fatal(err)
	}
	s.Patience = time.Second
	if err := s.Arrived(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	const grace = 500 * time.Millisecond
	last := time.Now()
	if err := s.Settle(t.Context(), last, grace); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(last); took < grace || took > grace+5*time.Second {
		t.Errorf("settled after %v", took)
	}
	st, err := s.Crew.Finish(t.Context())
	if err != nil || st.Counts[tally.Acked] != 19 || st.Counts[tally.Unanswered] != 1 {
		t.Errorf("%v, counts %v", err, st.Counts)
	}
}
