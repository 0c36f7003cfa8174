package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/site"
)

// from is a handshake of a client that a proxy names.
func from(client string) []byte { return army.Request("X-Forwarded-For: " + client) }

// attempt connects, sends a request, and returns the status of the answer.
func attempt(addr string, request []byte) (status int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetLinger(0) // no port stays taken
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// hammer lets four attackers try as often as they can, and counts the answers.
func hammer(t *testing.T, s *site.Site, during time.Duration, request func(i int64) []byte) (in, refused float64) {
	t.Helper()
	var all sync.WaitGroup
	var tries, ins, refusals atomic.Int64
	over := time.Now().Add(during)
	for range 4 {
		all.Go(func() {
			for time.Now().Before(over) {
				switch status, err := attempt(s.Addr, request(tries.Add(1))); {
				case err != nil:
					t.Errorf("attempt: %v", err)
					return
				case status == http.StatusSwitchingProtocols:
					ins.Add(1)
				case status == http.StatusTooManyRequests:
					refusals.Add(1)
				default:
					t.Errorf("answer %d", status)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(ins.Load()), float64(refusals.Load())
}

// One address behind the load balancer tries as often as it can: it is let in at its rate,
// and nobody else behind the same balancer notices. Then as many addresses as possible try
// once each: nobody is refused, and the edge does not grow with them.
func TestFloodOfOneAddress(t *testing.T) {
	const rate, burst, during = 5, 50, 3 * time.Second
	s := attacked(t, site.Options{Env: []string{"TRUSTED_PROXIES=127.0.0.0/8", "ATTEMPT_RATE=5", "LOG_LEVEL=warn"}})
	quit, ended := make(chan struct{}), make(chan int)
	go func() { // others, through the same balancer
		n := 0
		defer func() { ended <- n }()
		for ; ; n++ {
			select {
			case <-quit:
				return
			default:
			}
			if status, err := attempt(s.Addr, from(fmt.Sprintf("198.51.100.%d", n%250))); err != nil || status != http.StatusSwitchingProtocols {
				t.Errorf("another address is answered %d, %v", status, err)
				return
			}
			time.Sleep(10 * time.Millisecond) // the pace of newcomers
		}
	}()
	began := time.Now()
	in, refused := hammer(t, s, during, func(int64) []byte { return from("203.0.113.66") })
	took := time.Since(began).Seconds()
	close(quit)
	others := <-ended
	t.Logf("in %.1f s %v of %v got in, and %d others", took, in, in+refused, others)
	if in < burst || in > burst+rate*(took+1) {
		t.Errorf("%v got in, want %d and %d a second", in, burst, rate)
	}
	if others < 50 {
		t.Errorf("only %d others came", others)
	}
	if n := metrics(t, s).Get("handshakes_refused_total", "address"); n != refused || refused < 100 {
		t.Errorf("%v are counted, %v were refused", n, refused)
	}

	held, _, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	in, refused = hammer(t, s, during, func(i int64) []byte { return from(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)) })
	_, peak, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v addresses: peak %.1f MiB from %.1f", in, mib(peak), mib(held))
	if refused != 0 {
		t.Errorf("%v of %v addresses were refused at their first try", refused, in+refused)
	}
	if peak-held > 8<<20 {
		t.Errorf("the edge grew by %.1f MiB", mib(peak-held))
	}
}
