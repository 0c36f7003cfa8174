package crew_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/crew"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

// TestMain makes this test program an agent of a kind of its own: what it does stands in
// the plan's Run.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == crew.Argument {
		actor()
		return
	}
	goleak.VerifyTestMain(m)
}

func actor() {
	in := bufio.NewScanner(os.Stdin)
	var p agent.Plan
	if !in.Scan() || json.Unmarshal(in.Bytes(), &p) != nil {
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	switch p.Run {
	case "dies":
		return
	case "babbles":
		fmt.Println("not a tick")
		return
	}
	t := agent.Tick{Ends: map[string]int64{"why": 1}}
	for in.Scan() {
		var c agent.Command
		if json.Unmarshal(in.Bytes(), &c) != nil {
			return
		}
		t.Times = tally.Times{}
		t.Times.Record(tally.Login, time.Duration(p.Index+1)*time.Second)
		t.Counts[tally.Online], t.Counts[tally.Logins] = int64(c.N), int64(c.N)
		t.Span = agent.Span{FirstDial: int64(10 + p.Index), LastLogin: int64(100 + p.Index), LastAck: int64(1000 + p.Index)}
		t.Last = c.Do == agent.Finish
		_ = out.Encode(t)
	}
}

func start(t *testing.T, kinds ...string) *crew.Crew {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var plans []agent.Plan
	for i, k := range kinds {
		plans = append(plans, agent.Plan{Run: k, Index: i})
	}
	c, err := crew.Start([]string{exe}, plans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestTicksAddUp(t *testing.T) {
	c := start(t, "acts", "acts", "acts")
	err := c.Tell(func(i int) agent.Command { return agent.Command{Do: agent.Open, N: crew.Share(100, i, 3)} })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Await(within(t), func(s crew.State) (bool, error) { return s.Counts[tally.Online] == 100, nil }); err != nil {
		t.Fatal(err)
	}
	s := c.State()
	if s.Ends["why"] != 3 || s.Span.FirstDial != 10 || s.Span.LastLogin != 102 || s.Span.LastAck != 1002 {
		t.Errorf("state %+v", s)
	}
	times := c.TakeTimes()
	if times.Count(tally.Login) != 3 || times.Quantile(tally.Login, 1) < 2900*time.Millisecond {
		t.Errorf("%d times, the longest %v", times.Count(tally.Login), times.Quantile(tally.Login, 1))
	}
	again := c.TakeTimes()
	if again.Count(tally.Login) != 0 {
		t.Error("times were taken twice")
	}
	if _, err := c.Finish(within(t)); err != nil {
		t.Error(err)
	}
	if len(c.PIDs()) != 3 {
		t.Errorf("processes %v", c.PIDs())
	}
}

func TestProcessThatEndsEarlyIsNoticed(t *testing.T) {
	for kind, want := range map[string]string{"dies": "ended early", "babbles": "a line of process 1"} {
		c := start(t, "acts", kind)
		err := c.Await(within(t), func(crew.State) (bool, error) { return false, nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestAwaitEndsWithItsQuestion(t *testing.T) {
	c := start(t, "acts")
	no := errors.New("no")
	if err := c.Await(within(t), func(crew.State) (bool, error) { return false, no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Await(ctx, func(crew.State) (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestShares(t *testing.T) {
	for _, all := range []int{0, 1, 7, 100, 1_000_000} {
		for _, n := range []int{1, 2, 3, 52} {
			sum, least, most := 0, all, 0
			for i := range n {
				s := crew.Share(all, i, n)
				sum, least, most = sum+s, min(least, s), max(most, s)
			}
			if sum != all || most-least > 1 {
				t.Errorf("%d in %d parts: sum %d, from %d to %d", all, n, sum, least, most)
			}
		}
	}
}
