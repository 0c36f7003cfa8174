package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/crowd"
	"github.com/wirepost/wirepost/scripts/attacks/site"
)

const (
	attackTime = 4 * time.Second // when all attackers are there
	frameRate  = 50              // defaults of FRAME_RATE and BYTE_RATE
	byteRate   = 256 << 10
	burst      = 10 // seconds
)

// Each attack, on a fresh edge: the memory stays within its bound, the edge takes no more
// from an attacker than its rates allow, every healthy user gets every answer, and those
// who come during the attack get in.
//
// How long the answers take is not tested: on a shared machine the attacker takes processor
// time that the edge cannot give back, and a test of p99 would say what else runs there.
// make attacks measures it, against a control that uses as much.
func TestAttacks(t *testing.T) {
	for _, a := range army.All(token) {
		t.Run(a.Name, func(t *testing.T) {
			s := attacked(t, site.Options{Env: []string{"LOG_LEVEL=warn"}})
			c, err := crowd.Login(s.Addr, 20, token)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			before := metrics(t, s)
			held, _, err := s.Memory()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.ResetPeak(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			talking, stopTalking := context.WithCancel(context.Background())
			talked := make(chan struct{})
			go func() { c.Talk(talking, 200*time.Millisecond, 20*time.Second); close(talked) }()
			report, high := attack(t, s, a)
			stopTalking()
			<-talked
			took := time.Since(began)
			counted := metrics(t, s).Since(before)
			_, peak, err := s.Memory()
			if err != nil {
				t.Fatal(err)
			}
			trips := c.Trips(began, time.Now())
			t.Logf("%d connects, at most %d at a time, %d KiB sent, answers %v; peak %.1f MiB from %.1f, bound +%.0f; %d round trips, p99 %v",
				report.Dials, report.Most, report.Bytes>>10, report.Statuses, mib(peak), mib(held), mib(bound(a)),
				len(trips), crowd.Quantile(trips, 0.99).Round(10*time.Microsecond))
			if peak-held > bound(a) {
				t.Errorf("the edge grew by %.1f MiB, the bound is %.1f", mib(peak-held), mib(bound(a)))
			}
			if errs := c.Errors(); len(errs) > 0 {
				t.Errorf("%d healthy users were cut off: %v", len(errs), errs[0])
			}
			if high.late != nil {
				t.Errorf("who comes during the attack is kept out: %v", high.late)
			}
			if high.arriving > 8192 {
				t.Errorf("%v connections were on their way in at once", high.arriving)
			}
			came(t, a, counted)
			bounded(t, a, report, counted, took)
		})
	}
}

// height is what an edge looks like when all attackers are there.
type height struct {
	arriving float64 // the most connections that were on their way in at once
	late     error   // of those who come then
}

// attack lets an army loose. Some come when all of it is there, before the first of those
// who only sit there have had their time, and some near its end.
func attack(t *testing.T, s *site.Site, a *army.Attack) (report army.Report, high height) {
	t.Helper()
	all := time.Duration(a.N) * time.Second / time.Duration(a.Dials) // until all attackers are there
	ctx, cancel := context.WithTimeout(context.Background(), all+attackTime)
	defer cancel()
	published := deliver(ctx, s, a)
	come := make(chan height, 1)
	go func() {
		var h height
		for _, during := range []time.Duration{all + attackTime/8, attackTime * 5 / 8} {
			most, err := mostArriving(s, during)
			h.arriving, h.late = max(h.arriving, most), errors.Join(h.late, err, comeLate(s))
		}
		waits, err := s.Unread()
		h.late = errors.Join(h.late, err)
		t.Logf("%.1f MiB wait in the kernel, at most %v connections were on their way in", mib(waits), h.arriving)
		come <- h
	}()
	report = army.New(a, addrPort(t, s)).Run(ctx)
	<-published
	return report, <-come
}

// comeLate lets some come, one after the other. Each is in at its first try: whoever only
// sits there gives way.
func comeLate(s *site.Site) error {
	for range 10 {
		c, err := crowd.Login(s.Addr, 1, func(string) string { return token("latecomer") })
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}

// mostArriving looks for a time at how many connections are on their way in.
func mostArriving(s *site.Site, during time.Duration) (most float64, err error) {
	tick := time.NewTicker(200 * time.Millisecond) // the edge counts four times a second
	defer tick.Stop()
	for over := time.After(during); ; {
		select {
		case <-tick.C:
		case <-over:
			return most, nil
		}
		m, err := s.Metrics()
		if err != nil {
			return 0, err
		}
		most = max(most, m.Get("connections_arriving"))
	}
}

// came says that the attack was one.
func came(t *testing.T, a *army.Attack, counted site.Metrics) {
	t.Helper()
	if report := counted; len(a.Proof) > 0 {
		for _, name := range a.Proof {
			if report[name] > 0 {
				return
			}
		}
		t.Errorf("the attack did not come through: none of %v in %v", a.Proof, counted)
	}
}

// bounded holds the edge to its counters: what it took, by the rates of as many connections
// as there were.
func bounded(t *testing.T, a *army.Attack, report army.Report, counted site.Metrics, took time.Duration) {
	t.Helper()
	seconds := took.Seconds() + 1
	conns := float64(report.Dials)
	if most := conns * frameRate * (burst + seconds); counted.Get("messages_in_total")+counted.Get("pings_total") > most+healthy(took) {
		t.Errorf("%v messages and %v pings were taken from %v connections in %.1f s, at most %.0f are due",
			counted.Get("messages_in_total"), counted.Get("pings_total"), conns, seconds, most)
	}
	if most := conns * byteRate * (burst + seconds); counted.Get("bytes_in_total") > most+1<<20 {
		t.Errorf("%v bytes were taken", counted.Get("bytes_in_total"))
	}
	if n := counted.Get("closed_total", "memory"); n > 0 {
		t.Errorf("%v connections were closed for want of memory", n)
	}
}

// healthy is how many frames the users send.
func healthy(took time.Duration) float64 { return 20 * 2 * (took.Seconds()*5 + 2) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }
