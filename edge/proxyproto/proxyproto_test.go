package proxyproto_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/edge/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// header is a header of bytes 12 and 13, its length, and what follows.
func header(command, family byte, rest ...string) string {
	body := strings.Join(rest, "")
	return signature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

const (
	ipv4 = "\xcb\x00\x71\x05" + "\x0a\x00\x00\x01" + "\x13\x88" + "\x01\xbb" // 203.0.113.5:5000 to 10.0.0.1:443
	ipv6 = "\x20\x01\x0d\xb9\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb9\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x13\x88" + "\x01\xbb"
	tlv  = "\x05\x00\x03abc" // PP2_TYPE_UNIQUE_ID
)

var unix = strings.Repeat("\x00", 216)

var valid = map[string]struct{ in, source string }{
	"TCP over IPv4":            {header(0x21, 0x11, ipv4), "203.0.113.5:5000"},
	"TCP over IPv6":            {header(0x21, 0x21, ipv6), "[2001:db9::1]:5000"},
	"IPv4 in IPv6":             {header(0x21, 0x21, strings.Repeat("\x00", 10)+"\xff\xff\xcb\x00\x71\x05"+ipv6[16:]), "203.0.113.5:5000"},
	"with TLVs":                {header(0x21, 0x11, ipv4, tlv, tlv), "203.0.113.5:5000"},
	"with TLVs that are none":  {header(0x21, 0x11, ipv4, "\xff"), "203.0.113.5:5000"},
	"IPv6 with TLVs":           {header(0x21, 0x21, ipv6, tlv), "[2001:db9::1]:5000"},
	"as long as it may be":     {header(0x21, 0x11, ipv4, strings.Repeat("x", proxyproto.MaxBytes-16-12)), "203.0.113.5:5000"},
	"local":                    {header(0x20, 0x00), ""},
	"local with addresses":     {header(0x20, 0x11, ipv4), ""},
	"local, family is ignored": {header(0x20, 0xff, "abc"), ""},
	"unspecified":              {header(0x21, 0x00), ""},
	"unspecified with TLVs":    {header(0x21, 0x00, tlv), ""},
	"IPv4, no transport":       {header(0x21, 0x10, ipv4), ""},
	"UDP":                      {header(0x21, 0x12, ipv4), ""},
	"Unix socket":              {header(0x21, 0x31, unix), ""},
}

// Each is read the same however it is cut, and what follows is left alone.
func TestValid(t *testing.T) {
	const behind = "GET /ws HTTP/1.1\r\n\r\n"
	for name, c := range valid {
		t.Run(name, func(t *testing.T) {
			var want netip.AddrPort
			if c.source != "" {
				want = netip.MustParseAddrPort(c.source)
			}
			b := []byte(c.in + behind)
			for i := range len(b) + 1 {
				n, source, err := proxyproto.Read(b[:i])
				switch {
				case err != nil:
					t.Fatalf("%d bytes: %v", i, err)
				case i < len(c.in) && (n != 0 || source.IsValid()):
					t.Fatalf("%d of %d bytes are a header of %d from %v", i, len(c.in), n, source)
				case i >= len(c.in) && (n != len(c.in) || source != want):
					t.Fatalf("%d bytes from %v, want %d from %v", n, source, len(c.in), want)
				}
			}
		})
	}
}

// Each is refused at the first byte that tells, and not before.
func TestInvalid(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		at   int // bytes that are needed
		want error
	}{
		"HTTP":              {"GET /ws HTTP/1.1\r\n\r\n", 1, proxyproto.ErrSignature},
		"TLS":               {"\x16\x03\x01\x02\x00", 1, proxyproto.ErrSignature},
		"version 1":         {"PROXY TCP4 203.0.113.5 10.0.0.1 5000 443\r\n", 1, proxyproto.ErrSignature},
		"almost":            {"\r\n\r\n\x00\r\nQUIT\r\n", 12, proxyproto.ErrSignature},
		"version 3":         {header(0x31, 0x11, ipv4), 13, proxyproto.ErrVersion},
		"version 0":         {header(0x01, 0x11, ipv4), 13, proxyproto.ErrVersion},
		"unknown command":   {header(0x22, 0x11, ipv4), 13, proxyproto.ErrCommand},
		"unknown family":    {header(0x21, 0x41, ipv4), 16, proxyproto.ErrFamily},
		"unknown transport": {header(0x21, 0x13, ipv4), 16, proxyproto.ErrFamily},
		"short IPv4":        {header(0x21, 0x11, ipv4[:11]), 16, proxyproto.ErrLength},
		"short UDP":         {header(0x21, 0x12, ipv4[:11]), 16, proxyproto.ErrLength},
		"short IPv6":        {header(0x21, 0x21, ipv6[:35]), 16, proxyproto.ErrLength},
		"short Unix":        {header(0x21, 0x31, unix[:215]), 16, proxyproto.ErrLength},
		"too long":          {header(0x21, 0x11, ipv4, strings.Repeat("x", proxyproto.MaxBytes-16-11)), 16, proxyproto.ErrTooLong},
		"endless":           {header(0x20, 0x00)[:14] + "\xff\xff", 16, proxyproto.ErrTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range len(c.in) + 1 {
				n, source, err := proxyproto.Read([]byte(c.in[:i]))
				var want error
				if i >= c.at {
					want = c.want
				}
				if n != 0 || source.IsValid() || !errors.Is(err, want) || (err == nil) != (want == nil) {
					t.Fatalf("%d bytes: %d, %v, %v", i, n, source, err)
				}
			}
		})
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := []byte(header(0x21, 0x21, ipv6, tlv))
	if n := testing.AllocsPerRun(100, func() { _, _, _ = proxyproto.Read(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The answer for a part of the bytes is never taken back, and a length never lies.
func FuzzRead(f *testing.F) {
	for _, c := range valid {
		f.Add([]byte(c.in), 20)
	}
	f.Add([]byte(header(0x21, 0x11, ipv4[:11])), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		n, source, err := proxyproto.Read(b)
		if n < 0 || n > len(b) || n > proxyproto.MaxBytes || (err != nil && n != 0) || (n == 0 && source.IsValid()) || source.Addr().Is4In6() {
			t.Fatalf("%d, %v, %v of %d bytes", n, source, err, len(b))
		}
		if cut < 0 || cut > len(b) {
			return
		}
		was := slices.Clone(b)
		n2, source2, err2 := proxyproto.Read(b[:cut])
		if err2 != nil && err != err2 || n2 > 0 && (n2 != n || source2 != source) || n > 0 && cut >= n && n2 != n {
			t.Fatalf("%d bytes: %d, %v, %v; %d: %d, %v, %v", cut, n2, source2, err2, len(b), n, source, err)
		}
		if !slices.Equal(b, was) {
			t.Fatal("the bytes were changed")
		}
	})
}

func BenchmarkRead(b *testing.B) {
	h := []byte(header(0x21, 0x11, ipv4, tlv))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, _ := proxyproto.Read(h); n != len(h) {
			b.Fatal(n)
		}
	}
}
