package agent_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/load/agent"
	"github.com/wirepost/wirepost/scripts/load/standin"
	"github.com/wirepost/wirepost/scripts/load/tally"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// one is an agent that runs in this process.
type one struct {
	t     *testing.T
	in    io.WriteCloser
	ticks chan agent.Tick // closed at the agent's end
	last  agent.Tick
	times tally.Times
}

func start(t *testing.T, g *standin.Gateway, tune func(*agent.Plan)) *one {
	t.Helper()
	p := agent.Plan{URLs: []string{g.URL}, Traffic: agent.Pairs, Run: "t", Conns: 10, Secret: "0123456789abcdef0123456789abcdef",
		InFlight: 8, Size: 64, Tick: 20 * time.Millisecond}
	if tune != nil {
		tune(&p)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	o := &one{t: t, in: inW, ticks: make(chan agent.Tick)}
	done := make(chan error, 1)
	go func() {
		err := agent.Run(inR, outW)
		_ = outW.Close()
		done <- err
	}()
	go func() {
		defer close(o.ticks)
		for lines := bufio.NewScanner(outR); lines.Scan(); {
			var tick agent.Tick
			if err := json.Unmarshal(lines.Bytes(), &tick); err != nil {
				t.Errorf("tick: %v", err)
			}
			o.ticks <- tick
		}
	}()
	t.Cleanup(func() {
		_ = inW.Close()
		for range o.ticks {
		}
		if err := <-done; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	o.say(p)
	return o
}

func (o *one) say(v any) {
	o.t.Helper()
	if err := json.NewEncoder(o.in).Encode(v); err != nil {
		o.t.Fatal(err)
	}
}

// await takes ticks until one is as it should be.
func (o *one) await(what string, ok func(agent.Tick) bool) {
	o.t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case tick, open := <-o.ticks:
			if !open {
				o.t.Fatalf("the agent ended before %s", what)
			}
			o.times.Merge(&tick.Times)
			o.last = tick
			if ok(tick) {
				return
			}
		case <-timeout:
			o.t.Fatalf("%s does not come: %+v", what, o.last)
		}
	}
}

func (o *one) open(n int) {
	o.t.Helper()
	o.say(agent.Command{Do: agent.Open, N: n})
	o.await("everybody is online", func(t agent.Tick) bool { return t.Counts[tally.Online] == int64(n) })
}

func (o *one) settled(sent int) {
	o.t.Helper()
	o.await("everything has arrived", func(t agent.Tick) bool {
		return t.Counts[tally.Sent] == int64(sent) && t.Counts[tally.Pending] == 0
	})
}

func (o *one) finish() tally.Counts {
	o.t.Helper()
	o.say(agent.Command{Do: agent.Finish})
	o.await("the last tick", func(t agent.Tick) bool { return t.Last })
	return o.last.Counts
}

// A server that stands still for a second stands still for all that was due meanwhile.
// A tool that waits for answers before it sends would have sent ten messages in that
// second, and would show a p99 of some milliseconds.
func TestStalledServerShowsInP99(t *testing.T) {
	const rate, sent = 500, 1500
	g := standin.Start(t, nil)
	o := start(t, g, nil)
	o.open(10)
	o.say(agent.Command{Do: agent.Send, Rate: rate, Count: sent})
	o.await("half a second of traffic", func(t agent.Tick) bool { return t.Counts[tally.Sent] >= rate/2 })
	goOn := g.Stall()
	defer goOn()
	before := o.last.Counts[tally.Sent]
	o.await("a second of standing still", func(t agent.Tick) bool { return t.Counts[tally.Sent] >= before+rate })
	again := time.Now().UnixNano()
	goOn()
	o.settled(sent)
	if o.last.Span.LastAck < again {
		t.Error("the last acknowledgement came after the stall, and is not dated so")
	}
	for _, k := range []tally.Kind{tally.Ack, tally.Deliver} {
		p50, p99 := o.times.Quantile(k, 0.5), o.times.Quantile(k, 0.99)
		if n := o.times.Count(k); n != sent || p99 < 700*time.Millisecond || p50 > 500*time.Millisecond {
			t.Errorf("%v: %d values, p50 %v, p99 %v", k, n, p50, p99)
		}
	}
	if c := o.finish(); c[tally.Acked] != sent || c[tally.Delivered] != sent || c[tally.Unanswered] != 0 || c[tally.Missing] != 0 {
		t.Errorf("counts %v", c)
	}
}

// A message that is due while its connection is down is late from the time it was due,
// and what was under way is sent again.
func TestLostConnectionsComeBackAndHideNothing(t *testing.T) {
	const rate, sent = 500, 1000
	g := standin.Start(t, nil)
	o := start(t, g, nil)
	o.open(10)
	o.say(agent.Command{Do: agent.Send, Rate: rate, Count: sent})
	o.await("some traffic", func(t agent.Tick) bool { return t.Counts[tally.Acked] >= 100 })
	goOn := g.Stall()
	defer goOn()
	o.await("some under way", func(t agent.Tick) bool { return t.Counts[tally.Pending] >= 50 })
	g.CloseAll()
	o.await("everybody offline", func(t agent.Tick) bool { return t.Counts[tally.Online] == 0 })
	before := o.last.Counts[tally.Sent]
	o.await("some due meanwhile", func(t agent.Tick) bool { return t.Counts[tally.Sent] >= before+rate/2 })
	goOn()
	o.settled(sent)
	c := o.finish()
	if c[tally.Dropped] != 10 || c[tally.Resumed] != 10 || c[tally.NotResumed] != 0 || c[tally.Repeated] == 0 {
		t.Errorf("counts %v", c)
	}
	// Twice may be: what the gateway had read of a lost connection is repeated all the same.
	if c[tally.Acked] != sent || c[tally.Unanswered] != 0 || c[tally.Missing] != 0 {
		t.Errorf("counts %v", c)
	}
	if p, n := o.times.Quantile(tally.Ack, 0.8), o.times.Count(tally.Back); p < 200*time.Millisecond || n != 10 {
		t.Errorf("p80 %v although a half was due in the pause; %d came back", p, n)
	}
	// All were gone for the half second in which rate/2 messages were due.
	if least := o.times.Quantile(tally.Back, 0.01); least < 490*time.Millisecond {
		t.Errorf("one was back after %v", least)
	}
}

// A gateway that is full is no failure; one that answers anything else is.
func TestRefusedHandshakes(t *testing.T) {
	for status, want := range map[int]tally.Count{http.StatusServiceUnavailable: tally.TurnedAway, http.StatusForbidden: tally.Failed} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(h.Close)
		o := start(t, &standin.Gateway{URL: "ws" + strings.TrimPrefix(h.URL, "http")}, nil)
		o.say(agent.Command{Do: agent.Open, N: 10})
		o.await("everybody was refused", func(t agent.Tick) bool { return t.Counts[tally.TurnedAway]+t.Counts[tally.Failed] >= 10 })
		c := o.finish()
		if other := tally.TurnedAway + tally.Failed - want; c[want] < 10 || c[other] != 0 || c[tally.Online] != 0 || c[tally.Logins] != 0 {
			t.Errorf("status %d: counts %v", status, c)
		}
	}
}

func TestNotResumedIsCounted(t *testing.T) {
	g := standin.Start(t, nil)
	o := start(t, g, nil)
	o.open(10)
	g.Forget()
	g.CloseAll()
	o.await("everybody is back", func(t agent.Tick) bool { return t.Counts[tally.Logins] == 20 })
	if c := o.finish(); c[tally.NotResumed] != 10 || c[tally.Resumed] != 0 {
		t.Errorf("counts %v", c)
	}
}

// Each thing that can go wrong with a message has a count of its own.
func TestWhatGoesWrongIsCounted(t *testing.T) {
	const sent = 200
	for _, c := range []struct {
		fault standin.Fault
		want  map[tally.Count]int64 // 0 is wanted of the others
	}{
		{standin.None, map[tally.Count]int64{tally.Acked: sent, tally.Delivered: sent}},
		{standin.LoseCopy, map[tally.Count]int64{tally.Acked: sent, tally.Delivered: sent - 1, tally.Missing: 1}},
		{standin.LoseAll, map[tally.Count]int64{tally.Acked: sent - 1, tally.Delivered: sent - 1, tally.Unanswered: 1}},
		{standin.Refuse, map[tally.Count]int64{tally.Acked: sent - 1, tally.Delivered: sent - 1, tally.Refused: 1}},
		{standin.Double, map[tally.Count]int64{tally.Acked: sent, tally.Delivered: sent, tally.Twice: 1}},
		{standin.Astray, map[tally.Count]int64{tally.Acked: sent, tally.Delivered: sent, tally.Foreign: 1}},
	} {
		g := standin.Start(t, func(n int) standin.Fault {
			if n == sent/2 {
				return c.fault
			}
			return standin.None
		})
		o := start(t, g, nil)
		o.open(10)
		o.say(agent.Command{Do: agent.Send, Rate: 1000, Count: sent})
		o.await("the echoes", func(t agent.Tick) bool {
			return t.Counts[tally.Acked] >= c.want[tally.Acked] && t.Counts[tally.Delivered] >= c.want[tally.Delivered]
		})
		got := o.finish()
		for _, k := range []tally.Count{tally.Acked, tally.Delivered, tally.Missing, tally.Unanswered, tally.Refused, tally.Twice, tally.Foreign} {
			if got[k] != c.want[k] {
				t.Errorf("fault %d: %v is %d, want %d", c.fault, k, got[k], c.want[k])
			}
		}
	}
}

func TestTrafficReachesWhomItShould(t *testing.T) {
	for _, c := range []struct {
		traffic               agent.Traffic
		sent, acked, delivers int64
	}{
		{agent.Self, 50, 50, 0},
		{agent.Ring, 50, 50, 50},
		{agent.Fanout, 50, 50, 50 * 4},
	} {
		g := standin.Start(t, nil)
		o := start(t, g, func(p *agent.Plan) { p.Traffic, p.Devices = c.traffic, 4 })
		o.open(10)
		o.say(agent.Command{Do: agent.Send, Rate: 1000, Count: int(c.sent)})
		o.settled(int(c.sent))
		if got := o.finish(); got[tally.Acked] != c.acked || got[tally.Delivered] != c.delivers || got[tally.Missing] != 0 || got[tally.Foreign] != 0 {
			t.Errorf("%s: %v", c.traffic, got)
		}
	}
}

// With a heartbeat each half second, a connection that is not answered is given up.
func TestHeartbeats(t *testing.T) {
	g := standin.Start(t, nil)
	o := start(t, g, nil)
	o.open(10)
	o.await("answers", func(t agent.Tick) bool { return t.Counts[tally.Answers] >= 30 })
	if n := o.times.Count(tally.Beat); n < 30 || o.last.Counts[tally.Dropped] != 0 {
		t.Errorf("%d times, counts %v", n, o.last.Counts)
	}
	goOn := g.Stall()
	defer goOn()
	o.await("silence noticed", func(t agent.Tick) bool { return t.Ends["silent"] == 10 })
	goOn()
	o.await("everybody is back", func(t agent.Tick) bool { return t.Counts[tally.Online] == 10 })
}

func TestPlansThatCannotBeFollowed(t *testing.T) {
	g := standin.Start(t, nil)
	for name, tune := range map[string]func(*agent.Plan){
		"one of a pair": func(p *agent.Plan) { p.Conns = 1 },
		"no group":      func(p *agent.Plan) { p.Traffic, p.Devices = agent.Fanout, 10 },
		"many devices":  func(p *agent.Plan) { p.Traffic, p.Devices = agent.Fanout, 31 },
		"no traffic":    func(p *agent.Plan) { p.Traffic = "" },
		"few tokens":    func(p *agent.Plan) { p.Secret, p.Tokens = "", []string{"x"} },
		"TLS":           func(p *agent.Plan) { p.URLs = []string{"wss://127.0.0.1/"} },
	} {
		p := agent.Plan{URLs: []string{g.URL}, Traffic: agent.Pairs, Run: "t", Conns: 10, Secret: "s", Tick: time.Second}
		tune(&p)
		line, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		go func() { _, _ = w.Write(append(line, '\n')); _ = w.Close() }()
		var tick agent.Tick
		outR, outW := io.Pipe()
		go func() { _ = outW.CloseWithError(agent.Run(r, outW)) }()
		err = json.NewDecoder(outR).Decode(&tick)
		if err != nil || tick.Error == "" || !tick.Last {
			t.Errorf("%s: %v, %+v", name, err, tick)
		}
		_, _ = io.Copy(io.Discard, outR)
	}
}
