package handshake_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/edge/handshake"
)

func proxies(t testing.TB, list ...string) handshake.Proxies {
	t.Helper()
	p, err := handshake.ParseProxies(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const peer = "10.0.0.1:4711"

// Our proxies are 10.0.0.0/8, 192.0.2.7 and 2001:db8::/32; the request comes from one.
func TestForwarded(t *testing.T) {
	p := proxies(t, "10.0.0.0/8", "192.0.2.7", "2001:db8::/32")
	for name, c := range map[string]struct {
		lines  []string
		client string
		scheme handshake.Scheme
	}{
		"no header":                  {nil, peer, handshake.SchemeUnknown},
		"one address":                {[]string{"X-Forwarded-For: 203.0.113.5"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"any case":                   {[]string{"x-FORWARDED-for:203.0.113.5"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"proxies are skipped":        {[]string{"X-Forwarded-For: 203.0.113.5, 192.0.2.7,10.9.9.9"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"a proxy by IPv6":            {[]string{"X-Forwarded-For: 203.0.113.5, 2001:db8::5"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"a proxy as IPv4 in IPv6":    {[]string{"X-Forwarded-For: 203.0.113.5, ::ffff:10.1.1.1"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"what a client adds":         {[]string{"X-Forwarded-For: 6.6.6.6, 10.6.6.6, 203.0.113.5, 10.9.9.9"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"a neighbour is no proxy":    {[]string{"X-Forwarded-For: 203.0.113.5, 192.0.2.8"}, "192.0.2.8:0", handshake.SchemeUnknown},
		"two lines are one list":     {[]string{"X-Forwarded-For: 6.6.6.6", "X-A: b", "X-Forwarded-For: 203.0.113.5"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"proxies in the second line": {[]string{"X-Forwarded-For: 203.0.113.5", "X-Forwarded-For: 10.1.1.1"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"all are proxies":            {[]string{"X-Forwarded-For: 10.7.7.7, 10.8.8.8"}, "10.7.7.7:0", handshake.SchemeUnknown},
		"port":                       {[]string{"X-Forwarded-For: 203.0.113.5:5000"}, "203.0.113.5:5000", handshake.SchemeUnknown},
		"IPv6":                       {[]string{"X-Forwarded-For: 2001:db9::1"}, "[2001:db9::1]:0", handshake.SchemeUnknown},
		"IPv6 in brackets":           {[]string{"X-Forwarded-For: [2001:db9::1]"}, "[2001:db9::1]:0", handshake.SchemeUnknown},
		"IPv6 with a port":           {[]string{"X-Forwarded-For: [2001:db9::1]:443"}, "[2001:db9::1]:443", handshake.SchemeUnknown},
		"IPv4 in IPv6 in brackets":   {[]string{"X-Forwarded-For: [::ffff:203.0.113.5]:443"}, "203.0.113.5:443", handshake.SchemeUnknown},
		"garbage, a proxy":           {[]string{"X-Forwarded-For: 203.0.113.5, unknown, 10.9.9.9"}, "10.9.9.9:0", handshake.SchemeUnknown},
		"garbage last":               {[]string{"X-Forwarded-For: 203.0.113.5, unknown"}, peer, handshake.SchemeUnknown},
		"garbage before the client":  {[]string{"X-Forwarded-For: <script>, 203.0.113.5"}, "203.0.113.5:0", handshake.SchemeUnknown},
		"garbage in the first line":  {[]string{"X-Forwarded-For: 1.2.3", "X-Forwarded-For: 10.9.9.9"}, "10.9.9.9:0", handshake.SchemeUnknown},
		"empty element":              {[]string{"X-Forwarded-For: 203.0.113.5,, 10.9.9.9"}, "10.9.9.9:0", handshake.SchemeUnknown},
		"empty header":               {[]string{"X-Forwarded-For:"}, peer, handshake.SchemeUnknown},
		"zone":                       {[]string{"X-Forwarded-For: fe80::1%eth0"}, peer, handshake.SchemeUnknown},
		"zone and port":              {[]string{"X-Forwarded-For: [fe80::1%1]:80"}, peer, handshake.SchemeUnknown},
		"IPv4 in brackets":           {[]string{"X-Forwarded-For: [203.0.113.5]"}, peer, handshake.SchemeUnknown},
		"brackets in brackets":       {[]string{"X-Forwarded-For: [[::1]]"}, peer, handshake.SchemeUnknown},
		"half a bracket":             {[]string{"X-Forwarded-For: ]", "X-Forwarded-For: ["}, peer, handshake.SchemeUnknown},
		"leading zeros":              {[]string{"X-Forwarded-For: 203.0.113.005"}, peer, handshake.SchemeUnknown},
		"a network":                  {[]string{"X-Forwarded-For: 203.0.113.0/24"}, peer, handshake.SchemeUnknown},
		"very long":                  {[]string{"X-Forwarded-For: " + strings.Repeat("1", 5000)}, peer, handshake.SchemeUnknown},
		"another header":             {[]string{"Forwarded: for=203.0.113.5", "X-Forwarded-Form: 1.1.1.1"}, peer, handshake.SchemeUnknown},
		"https":                      {[]string{"X-Forwarded-Proto: https"}, peer, handshake.SchemeHTTPS},
		"http":                       {[]string{"x-forwarded-proto: HTTP"}, peer, handshake.SchemeHTTP},
		"wss":                        {[]string{"X-Forwarded-Proto: wss"}, peer, handshake.SchemeHTTPS},
		"ws":                         {[]string{"X-Forwarded-Proto: ws"}, peer, handshake.SchemeHTTP},
		"another scheme":             {[]string{"X-Forwarded-Proto: ftp"}, peer, handshake.SchemeUnknown},
		"a list of schemes":          {[]string{"X-Forwarded-Proto: https, http"}, peer, handshake.SchemeUnknown},
		"a scheme twice":             {[]string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: https"}, peer, handshake.SchemeUnknown},
		"a scheme three times":       {[]string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: x", "X-Forwarded-Proto: http"}, peer, handshake.SchemeUnknown},
		"both":                       {[]string{"X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.5"}, "203.0.113.5:0", handshake.SchemeHTTPS},
	} {
		t.Run(name, func(t *testing.T) {
			client, scheme := p.Forwarded([]byte(request(c.lines...)), netip.MustParseAddrPort(peer))
			if client != netip.MustParseAddrPort(c.client) || scheme != c.scheme {
				t.Errorf("client %v by %v, want %v by %v", client, scheme, c.client, c.scheme)
			}
		})
	}
}

func TestParseProxies(t *testing.T) {
	p := proxies(t, " 10.1.2.3/8", "", "192.0.2.7", "::ffff:192.0.2.9", "2001:db8::/32")
	for addr, want := range map[string]bool{
		"10.200.0.1": true, "11.0.0.1": false, "192.0.2.7": true, "192.0.2.6": false, "192.0.2.9": true,
		"2001:db8:1::1": true, "2001:db9::1": false, "::1": false,
	} {
		if p.Trust(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s is trusted: %v", addr, !want)
		}
	}
	if p.None() || !proxies(t).None() || !proxies(t, "").None() || proxies(t).Trust(netip.MustParseAddr("10.0.0.1")) {
		t.Error("an empty list trusts somebody")
	}
	for _, bad := range []string{"0.0.0.0/0", "::/0", "10.0.0.0/33", "proxy", "10.0.0", "::ffff:10.0.0.0/104", "fe80::1%eth0", "*", "10.0.0.1:80"} {
		if _, err := handshake.ParseProxies([]string{bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// walk is the rule as it is told: from the right, past our proxies, up to what is no address.
func walk(p handshake.Proxies, elements []string) string {
	found := peer
	for i := len(elements) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(elements[i])
		if err != nil {
			return found
		}
		if found = addr.String() + ":0"; !p.Trust(addr) {
			return found
		}
	}
	return found
}

// Every list of up to five elements, in one line and cut into two anywhere.
func TestForwardedIsTheWalkFromTheRight(t *testing.T) {
	p := proxies(t, "10.0.0.0/8")
	kinds := []string{"10.0.0.5", "10.0.0.6", "203.0.113.5", "203.0.113.6", "?"}
	lists := [][]string{nil}
	for begin := 0; len(lists[begin]) < 5; begin++ {
		for _, kind := range kinds {
			lists = append(lists, append(lists[begin][:len(lists[begin]):len(lists[begin])], kind))
		}
	}
	for _, list := range lists[1:] {
		want := walk(p, list)
		for cut := range len(list) {
			lines := []string{"X-Forwarded-For: " + strings.Join(list[cut:], ",")}
			if cut > 0 {
				lines = append([]string{"X-Forwarded-For: " + strings.Join(list[:cut], " , ")}, lines...)
			}
			if client, _ := p.Forwarded([]byte(request(lines...)), netip.MustParseAddrPort(peer)); client.String() != want {
				t.Fatalf("%q: client %v, want %v", lines, client, want)
			}
		}
	}
}

// Whatever a stranger has written, the client is whom our own proxies saw; and whatever the
// bytes are, the result is an address.
func FuzzForwarded(f *testing.F) {
	f.Add("203.0.113.5, [2001:db8::1]:80")
	f.Add("\n\r\nX-Forwarded-For")
	f.Add("a\r\nx-forwarded-for:[\r\n:")
	f.Add("],[,[],%,::%,[::%1]:1")
	p := proxies(f, "10.0.0.0/8", "2001:db8::/32")
	from := netip.MustParseAddrPort(peer)
	f.Fuzz(func(t *testing.T, said string) {
		for _, b := range []string{said, request("X-Forwarded-For: " + said)} {
			client, _ := p.Forwarded([]byte(b), from)
			if !client.IsValid() || client.Addr().Is4In6() || client.Addr().Zone() != "" {
				t.Fatalf("client %v", client)
			}
		}
		if strings.ContainsAny(said, "\r\n") {
			return // it cannot be in a line
		}
		for _, lines := range [][]string{{"X-Forwarded-For: " + said + ", 198.51.100.9, 10.1.1.1"}, {"X-Forwarded-For: " + said, "X-Forwarded-For: 198.51.100.9,10.1.1.1"}} {
			if client, _ := p.Forwarded([]byte(request(lines...)), from); client.String() != "198.51.100.9:0" {
				t.Fatalf("client %v", client)
			}
		}
	})
}
