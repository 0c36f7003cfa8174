package ports_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/wirepost/wirepost/scripts/ports"
)

// Each address is given once, is free, and is none that the kernel gives to outgoing
// connections.
func TestTake(t *testing.T) {
	out, err := net.Listen("tcp", "127.0.0.1:0") // the kernel's own choice
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	kernels := netip.MustParseAddrPort(out.Addr().String()).Port()
	seen := map[string]bool{}
	for range 200 {
		addr, err := ports.Take()
		if err != nil {
			t.Fatal(err)
		}
		at, err := netip.ParseAddrPort(addr)
		if err != nil || !at.Addr().IsLoopback() || seen[addr] {
			t.Fatalf("%q: %v, given before: %v", addr, err, seen[addr])
		}
		seen[addr] = true
		if at.Port() >= 32_768 && kernels >= 32_768 {
			t.Errorf("%s is one of the ports of outgoing connections, as %d is", addr, kernels)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
	}
}
