package handshake

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Proxies are the networks of the proxies between clients and this edge: whoever comes
// from there is believed when it says who its client is. The zero Proxies believes nobody.
type Proxies struct {
	networks []netip.Prefix
}

// ParseProxies reads a list of networks (10.0.0.0/8, 2001:db8::/32) and of single
// addresses. There is no entry that believes everybody: an edge whose clients may say
// anything about themselves has no use for it.
func ParseProxies(list []string) (Proxies, error) {
	var p Proxies
	for _, entry := range list {
		s := strings.TrimSpace(entry)
		if s == "" {
			continue
		}
		network, err := parseNetwork(s)
		if err != nil {
			return Proxies{}, fmt.Errorf("%q is %w", entry, err)
		}
		if network.Bits() == 0 {
			return Proxies{}, fmt.Errorf("%q would believe everybody", entry)
		}
		p.networks = append(p.networks, network.Masked())
	}
	return p, nil
}

var errNetwork = errors.New("no network such as 10.0.0.0/8, nor an address")

func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		network, err := netip.ParsePrefix(s)
		if err != nil || network.Addr().Is4In6() { // it would contain no address
			return netip.Prefix{}, errNetwork
		}
		return network, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, errNetwork
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// None reports whether nobody is believed.
func (p Proxies) None() bool { return len(p.networks) == 0 }

// Trust reports whether addr, which is not an IPv4 address in an IPv6 one, is a proxy's.
func (p Proxies) Trust(addr netip.Addr) bool {
	for _, network := range p.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}
