package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/site"
	"github.com/wirepost/wirepost/shared/protocol"
)

// A user has 32 connections at an edge, and one more when one of them has gone.
func TestThirtyThirdConnection(t *testing.T) {
	s := attacked(t, site.Options{})
	tok := token("alice")
	var held []*peer
	for range 32 {
		held = append(held, login(t, s, tok))
	}
	p, err := dial(t, s, tok)
	if err != nil {
		t.Fatal(err)
	}
	if code := p.closed(); code != protocol.CloseTooMany {
		t.Errorf("closed with %d", code)
	}
	for _, p := range held {
		p.alive()
	}
	login(t, s, token("bob")).alive() // another user is not concerned
	_ = held[7].conn.Close()
	eventually(t, 10*time.Second, "there is a place again", func() bool { return metrics(t, s).Get("connections") == 32 })
	login(t, s, tok).alive()
	if n := metrics(t, s).Get("closed_total", "too_many"); n != 1 {
		t.Errorf("%v were one too many", n)
	}
}

// refused says that a connection is answered with 503 and when to come back.
func refused(t *testing.T, s *site.Site, reason string) {
	t.Helper()
	before := metrics(t, s).Get("handshakes_refused_total", reason)
	status, header := knock(t, s, army.Request(""))
	after, err := strconv.Atoi(header.Get("Retry-After"))
	if status != 503 || err != nil || after < 1 || after > 10 {
		t.Errorf("answer %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	if n := metrics(t, s).Get("handshakes_refused_total", reason); n != before+1 {
		t.Errorf("%v refused for %s, before it were %v", n, reason, before)
	}
}

// The edge keeps to the descriptors that its process has: beyond them it answers.
func TestAllPlacesTaken(t *testing.T) {
	const places = 100
	s := attacked(t, site.Options{Descriptors: 512 + places})
	var held []*peer
	for i := range places {
		held = append(held, login(t, s, token(fmt.Sprintf("user-%d", i/8))))
	}
	for range 300 {
		refused(t, s, "connections")
	}
	for _, p := range held {
		p.alive()
	}
	_ = held[0].conn.Close()
	eventually(t, 10*time.Second, "there is a place again", func() bool {
		p, err := dial(t, s, token("another"))
		if err != nil {
			return false
		}
		p.reply()
		return true
	})
	if n := metrics(t, s).Get("accept_failures_total"); n != 0 {
		t.Errorf("accept failed %v times", n)
	}
}

// Without any descriptor left the edge waits, and does not turn; who is here stays.
func TestNoDescriptors(t *testing.T) {
	s := attacked(t, site.Options{})
	p := login(t, s, token("alice"))
	metrics(t, s) // its connection stays open for the next one
	var old unix.Rlimit
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3 // less than is open: accept4 says EMFILE
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := dial(t, s, token("bob"))
		waiting <- err
	}()
	eventually(t, 10*time.Second, "accept fails", func() bool { return metrics(t, s).Get("accept_failures_total") > 0 })
	before, err := s.CPU()
	if err != nil {
		t.Fatal(err)
	}
	failures := metrics(t, s).Get("accept_failures_total")
	const period = 3 * time.Second
	for over := time.Now().Add(period); time.Now().Before(over); time.Sleep(100 * time.Millisecond) {
		p.alive()
	}
	after, err := s.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used > period/3 {
		t.Errorf("%v of processor time in %v without descriptors", used, period)
	}
	// Each of the loops tries once a second.
	if n := metrics(t, s).Get("accept_failures_total") - failures; n < 1 || n > 64*period.Seconds() {
		t.Errorf("accept failed %v times in %v", n, period)
	}
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("who waited is not served: %v", err)
	}
}

// Near its memory limit the edge takes nobody new, keeps those it has, stays within the
// limit, and takes people again when there is room. What waits in buffers may be a part of
// it only, so hoarders alone do not bring it there: many connections do.
func TestMemoryWatermark(t *testing.T) {
	const limit = 20 << 20
	s := attacked(t, site.Options{Env: []string{"GOMEMLIMIT=" + strconv.Itoa(limit), "LOG_LEVEL=warn"}})
	p := login(t, s, token("alice"))
	part := army.Frame(ws.OpText, true, strings.Repeat("x", 120<<10))[:100<<10]
	var held []*peer
	hold := func(i int) bool {
		h, err := dial(t, s, token(fmt.Sprintf("holder-%d", i/30)))
		if err != nil {
			return false // refused
		}
		held = append(held, h)
		h.reply()
		if i < 200 {
			h.write(part)
		}
		return true
	}
	const most = 8000 // connections; this process and the edge may have 20,000 descriptors
	for i := 0; hold(i); i++ {
		if i == most {
			t.Fatalf("nobody is refused: %v bytes are in use", metrics(t, s).Get("memory_used_bytes"))
		}
	}
	refused(t, s, "memory")
	p.alive()
	now, _, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	m := metrics(t, s)
	used := int64(m.Get("memory_used_bytes"))
	t.Logf("%d connections, %.1f MiB in buffers; %.1f MiB resident, %.1f in use of %.1f", len(held), mib(int64(m.Get("buffered_bytes"))), mib(now), mib(used), mib(limit))
	if m.Get("memory_limit_bytes") != limit || used < limit*8/10 || used > limit {
		t.Errorf("%d of %v bytes are in use", used, m.Get("memory_limit_bytes"))
	}
	if b := m.Get("buffered_bytes"); b > limit*4/10 {
		t.Errorf("%v bytes are in buffers", b)
	}
	if now > limit+16<<20 { // the limit does not count the binary
		t.Errorf("%.1f MiB are resident", mib(now))
	}
	for _, h := range held {
		_ = h.conn.Close()
	}
	eventually(t, 30*time.Second, "somebody is taken again", func() bool {
		_, err := dial(t, s, token("bob"))
		return err == nil
	})
	p.alive()
}
