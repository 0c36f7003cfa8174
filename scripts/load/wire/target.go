package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrTLS is returned by ParseTarget for a wss address.
	ErrTLS = errors.New("wss is not supported: measure behind the proxy that ends TLS, by its ws address")
	// ErrTarget is returned by ParseTarget for what is no WebSocket address.
	ErrTarget = errors.New("address must be such as ws://127.0.0.1:8081/ws")
)

const resolveTimeout = 10 * time.Second

// Target is a server's address, resolved once.
type Target struct {
	Addr netip.AddrPort
	host string // of the request
	path string // of the request, with the query
}

// ParseTarget resolves an address such as ws://127.0.0.1:8081/ws. Of several addresses
// of a name it takes the first.
func ParseTarget(raw string) (Target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Target{}, fmt.Errorf("%w: %w", ErrTarget, err)
	}
	switch {
	case u.Scheme == "wss":
		return Target{}, ErrTLS
	case u.Scheme != "ws" || u.Hostname() == "" || u.User != nil:
		return Target{}, fmt.Errorf("%w, is %q", ErrTarget, raw)
	}
	port := uint64(80)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return Target{}, fmt.Errorf("%w: %w", ErrTarget, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return Target{}, fmt.Errorf("resolve %s: %w", u.Hostname(), err)
	}
	return Target{netip.AddrPortFrom(addrs[0].Unmap(), uint16(port)), u.Host, u.RequestURI()}, nil
}

func (t Target) String() string { return "ws://" + t.host + t.path }

func (t Target) family() int {
	if t.Addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (t Target) sockaddr() unix.Sockaddr {
	if t.Addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: t.Addr.Addr().As4(), Port: int(t.Addr.Port())}
	}
	return &unix.SockaddrInet6{Addr: t.Addr.Addr().As16(), Port: int(t.Addr.Port())}
}

// spread reports whether connections to t come from many addresses of 127.1.0.0/16.
// From one address a server can be reached some 28,000 times, for want of ports.
func (t Target) spread() bool { return t.Addr.Addr().Is4() && t.Addr.Addr().IsLoopback() }

// source is the n-th source address: 127.1.0.1 to 127.1.255.254.
func source(n uint32) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(n / 254), byte(1 + n%254)}}
}
