package attempts_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wirepost/wirepost/edge/attempts"
)

// allowed counts how many of n attempts are allowed at one moment.
func allowed(t *attempts.Table, addr string, n int, at time.Time) (ok int) {
	a := netip.MustParseAddr(addr)
	for range n {
		if t.Allow(a, at) {
			ok++
		}
	}
	return ok
}

func TestRate(t *testing.T) {
	tab, now := attempts.New(5), time.Now()
	if n := allowed(tab, "203.0.113.5", 200, now); n != 50 {
		t.Errorf("%d at once, want ten seconds' worth, 50", n)
	}
	if n := allowed(tab, "203.0.113.6", 1, now); n != 1 {
		t.Error("a neighbour is refused")
	}
	// For a minute the flood goes on, a hundred a second: five a second get in.
	n := 0
	for i := range 60 * 100 {
		n += allowed(tab, "203.0.113.5", 1, now.Add(time.Duration(i)*10*time.Millisecond))
	}
	if n < 298 || n > 300 {
		t.Errorf("%d in a minute of flood, want 300", n)
	}
	if n := allowed(tab, "203.0.113.5", 200, now.Add(time.Hour)); n != 50 {
		t.Errorf("%d at once after an hour, want 50", n)
	}
}

func TestIPv6ByNetwork(t *testing.T) {
	tab, now := attempts.New(1), time.Now()
	n := 0
	for i := range 100 {
		addr := netip.MustParseAddr("2001:db8:0:1::").As16()
		binary.BigEndian.PutUint64(addr[8:], uint64(i)<<32|7)
		n += allowed(tab, netip.AddrFrom16(addr).String(), 1, now)
	}
	if n != 10 {
		t.Errorf("%d of one /64, want 10", n)
	}
	for _, other := range []string{"2001:db8:0:2::1", "2001:db8:1:1::1", "203.0.113.5", "::1"} {
		if allowed(tab, other, 20, now) != 10 {
			t.Errorf("%s shares with the network 2001:db8:0:1::/64", other)
		}
	}
	if n := allowed(tab, "::ffff:203.0.113.5", 20, now); n != 0 {
		t.Errorf("an IPv4 address has %d more as an IPv6 one", n)
	}
}

// Behind a NAT64 are many people, each with an IPv4 address that is told (RFC 6052).
func TestNAT64ByClient(t *testing.T) {
	tab, now := attempts.New(1), time.Now()
	for _, one := range []string{"64:ff9b::203.0.113.5", "64:ff9b::203.0.113.6", "64:ff9b:1::203.0.113.5", "64:ff9b:0:0:1::203.0.113.5"} {
		if n := allowed(tab, one, 20, now); n != 10 {
			t.Errorf("%s: %d, want 10 of its own", one, n)
		}
	}
	if n := allowed(tab, "203.0.113.5", 20, now); n != 0 {
		t.Errorf("an IPv4 address has %d more behind NAT64", n)
	}
}

// However many come, the table takes what it has, and nobody is refused for others: when
// there are too many, addresses are forgotten, those first that try the least.
func TestBoundedAndFailsOpen(t *testing.T) {
	tab, now := attempts.New(5), time.Now()
	if n := allowed(tab, "203.0.113.5", 1000, now); n != 50 {
		t.Fatalf("%d", n)
	}
	next := uint32(0)
	addr := func() netip.Addr {
		next++
		return netip.AddrFrom4([4]byte{byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)})
	}
	if n := testing.AllocsPerRun(300_000, func() {
		if !tab.Allow(addr(), now) {
			t.Fatal("somebody is refused who never came")
		}
	}); n != 0 {
		t.Errorf("%v allocations for an address", n)
	}
	if n := allowed(tab, "203.0.113.5", 100, now); n != 0 {
		t.Errorf("the flood was forgotten for those who came once: %d more", n)
	}
}

// Nor does who takes the row of somebody that owes inherit what that one owes.
func TestNobodyInherits(t *testing.T) {
	tab, now := attempts.New(5), time.Now()
	for i := range uint32(100_000) {
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i+1)))
		for n := range 50 {
			if ok := tab.Allow(addr, now); !ok {
				t.Fatalf("address %d is refused at try %d", i, n)
			}
		}
	}
}

func TestManyGoroutines(t *testing.T) {
	tab, now := attempts.New(10), time.Now()
	var ok atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { ok.Add(int64(allowed(tab, "203.0.113.5", 100, now))) })
	}
	all.Wait()
	if ok.Load() != 100 {
		t.Errorf("%d", ok.Load())
	}
}

func BenchmarkAllow(b *testing.B) {
	for _, c := range []struct {
		name  string
		addrs uint32
	}{{"one address", 1}, {"a million", 1_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			tab, now := attempts.New(5), time.Now()
			b.ReportAllocs()
			for i := uint32(0); b.Loop(); i++ {
				tab.Allow(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i%c.addrs))), now)
			}
		})
	}
}
