package socket_test

import (
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/attempts"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/envelope"
)

// behind serves where the peers, all on 127.0.0.1, and 10.0.0.0/8 are trusted proxies.
func behind(t *testing.T, change func(*socket.Config)) *rig {
	t.Helper()
	return serve(t, func(c *socket.Config, _ *rig) {
		c.Loops = 1 // a line of the log is written once a second by each
		c.Rules.Proxies = trust(t, "127.0.0.1", "10.0.0.0/8")
		if change != nil {
			change(c)
		}
	})
}

func trust(t *testing.T, list ...string) handshake.Proxies {
	t.Helper()
	p, err := handshake.ParseProxies(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// connected returns the address in the next event, which is Connected.
func (r *rig) connected() string {
	r.t.Helper()
	ev := r.up.next(r.t)
	var h envelope.Hello
	if err := json.Unmarshal([]byte(ev.data), &h); err != nil || ev.Type != envelope.Connected {
		r.t.Fatalf("event %s %q: %v", ev.Type, ev.data, err)
	}
	return h.Addr
}

// rawRequest is a handshake with a token, and more header lines.
func rawRequest(lines ...string) string {
	return "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer u1\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
}

// sends connects to addr, sends b as it is, and returns the status of the answer.
func (r *rig) sends(addr, b string) (p *peer, status string) {
	r.t.Helper()
	p = r.connectTo(addr)
	p.raw([]byte(b))
	return p, p.status()
}

// head reads the head of an answer.
func (p *peer) head() string {
	p.t.Helper()
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
		if _, err := io.ReadFull(p.r, b); err != nil {
			p.t.Fatalf("answer %q: %v", head, err)
		}
	}
	return string(head)
}

// status reads the head of an answer and returns its status.
func (p *peer) status() string {
	p.t.Helper()
	_, status, _ := strings.Cut(p.head(), " ")
	return status[:3]
}

// The event Connected tells who the client is: whom trusted proxies name, and nobody else.
func TestClientBehindProxy(t *testing.T) {
	const spoof, chain = "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 6.6.6.6, 203.0.113.5, 10.1.1.1"
	for name, c := range map[string]struct {
		trusted []string
		line    string
		want    string // "": the peer
	}{
		"nobody is trusted":       {nil, spoof, ""},
		"others are trusted":      {[]string{"10.0.0.0/8", "127.0.0.2"}, spoof, ""},
		"the peer is trusted":     {[]string{"127.0.0.1"}, spoof, "6.6.6.6"},
		"the way is trusted":      {[]string{"127.0.0.1", "10.0.0.0/8"}, chain, "203.0.113.5"},
		"a part of it is":         {[]string{"127.0.0.1"}, chain, "10.1.1.1"},
		"with a port":             {[]string{"127.0.0.1"}, "X-Forwarded-For: [2001:db9::1]:5000", "[2001:db9::1]:5000"},
		"the proxy says nothing":  {[]string{"127.0.0.1"}, "X-A: b", ""},
		"the proxy says nonsense": {[]string{"127.0.0.1"}, "X-Forwarded-For: unknown", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, func(cfg *socket.Config, _ *rig) { cfg.Rules.Proxies = trust(t, c.trusted...) })
			field, value, _ := strings.Cut(c.line, ": ")
			atOnce := r.open("/ws", "Authorization", "Bearer u1", field, value)
			atOnce.loginReply()
			check := func(p *peer) {
				t.Helper()
				want := c.want
				if want == "" {
					want = p.LocalAddr().String()
				}
				if got := r.connected(); got != want {
					t.Errorf("the client is %q, want %q", got, want)
				}
			}
			check(atOnce)
			later := r.open("/ws", field, value)
			later.raw(frame(ws.OpPing, true, "")) // between the handshake and the login nothing is going on
			later.next()
			later.text(`{"msgType":2,"msgBody":{"token":"u2"}}`)
			later.loginReply()
			check(later)
			for range 2 {
				r.down.next(t).r.Resync(token(2)) // Connected comes again
			}
			for range 2 {
				if got := r.connected(); c.want != "" && got != "" || c.want == "" && !strings.HasPrefix(got, "127.0.0.1:") {
					t.Errorf("again the client is %q", got)
				}
			}
		})
	}
}

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyUnspec    = proxySignature + "\x21\x00\x00\x00"
	proxyLocal     = proxySignature + "\x20\x00\x00\x00"
)

// proxyHeader says that source is the client.
func proxyHeader(source string) string {
	s := netip.MustParseAddrPort(source)
	port := string([]byte{byte(s.Port() >> 8), byte(s.Port())})
	b := s.Addr().AsSlice()
	family, n := "\x11", "\x00\x0c"
	if s.Addr().Is6() {
		family, n = "\x21", "\x00\x24"
	}
	return proxySignature + "\x21" + family + n + string(b) + string(make([]byte, len(b))) + port + "\x1f\x90"
}

func TestProxyProtocol(t *testing.T) {
	r := behind(t, nil)
	for name, c := range map[string]struct{ header, line, want string }{
		"IPv4":                          {proxyHeader("203.0.113.5:5000"), "", "203.0.113.5:5000"},
		"IPv6":                          {proxyHeader("[2001:db9::1]:5000"), "", "[2001:db9::1]:5000"},
		"TLVs":                          {proxySignature + "\x21\x11\x00\x10\xcb\x00\x71\x05\x0a\x00\x00\x01\x13\x88\x01\xbb\x04\x00\x01x", "", "203.0.113.5:5000"},
		"a client lies":                 {proxyHeader("203.0.113.5:5000"), "X-Forwarded-For: 6.6.6.6", "203.0.113.5:5000"},
		"a proxy before it":             {proxyHeader("10.1.1.1:5000"), "X-Forwarded-For: 6.6.6.6, 203.0.113.5", "203.0.113.5"},
		"its own":                       {proxyLocal, "", ""},
		"its own, a client lies":        {proxyLocal, "X-Forwarded-For: 6.6.6.6", ""},
		"it does not know":              {proxyUnspec, "", ""},
		"it does not know, client lies": {proxyUnspec, "X-Forwarded-For: 6.6.6.6", ""},
	} {
		t.Run(name, func(t *testing.T) {
			all := c.header + rawRequest(c.line)
			if c.line == "" {
				all = c.header + rawRequest()
			}
			// Cut into three where it may matter. Behind it comes a frame already.
			all += string(frame(ws.OpText, true, plainHeartbeat))
			n := len(c.header)
			for _, cut := range [][2]int{{0, 0}, {0, 1}, {1, 12}, {12, 16}, {13, n - 1}, {n - 1, n}, {n, n + 1}, {n - 1, n + 60}, {0, n + 60}, {n + 1, n + 60}, {16, len(all) - 5}, {len(all) - 5, len(all) - 1}} {
				p := r.connectTo(r.via)
				before := r.metric("bytes_in_total")
				for _, piece := range []string{all[:cut[0]], all[cut[0]:cut[1]], all[cut[1]:]} {
					p.raw([]byte(piece))
					before += float64(len(piece))
					eventually(t, "the piece is read", func() bool { return r.metric("bytes_in_total") == before })
				}
				if s := p.status(); s != "101" {
					t.Fatalf("cut at %v: answer %s", cut, s)
				}
				p.loginReply()
				p.expectText(plainHeartbeat)
				want := c.want
				if want == "" {
					want = p.LocalAddr().String()
				}
				if got := r.connected(); got != want {
					t.Fatalf("cut at %v: the client is %q, want %q", cut, got, want)
				}
				_ = p.Close()
				if ev := r.up.next(t); ev.Type != envelope.Disconnected {
					t.Fatalf("event %s", ev.Type)
				}
			}
		})
	}
	eventually(t, "nothing is lent", func() bool { return r.metric("buffered_bytes") == 0 && r.metric("connections_arriving") == 0 })
}

const plainHeartbeat = `{"msgType":1}`

// Who is no trusted proxy, or sends no proper header, is refused, counted and logged.
func TestProxyProtocolRefuses(t *testing.T) {
	t.Run("strangers", func(t *testing.T) {
		r := serve(t, func(c *socket.Config, _ *rig) { c.Rules.Proxies = trust(t, "10.0.0.0/8") })
		p, status := r.sends(r.via, proxyHeader("203.0.113.5:5000")+rawRequest())
		if status != "403" || r.metric("handshakes_refused_total", "proxy") != 1 || r.metric("handshakes_total") != 0 {
			t.Errorf("answer %s", status)
		}
		if _, err := io.Copy(io.Discard, p); err != nil {
			t.Errorf("not closed: %v", err)
		}
		if log := r.log.String(); !strings.Contains(log, "TRUSTED_PROXIES") || !strings.Contains(log, "peer=127.0.0.1:") {
			t.Errorf("log %q", log)
		}
	})
	r := behind(t, nil)
	n := 0.0
	for name, b := range map[string]string{
		"no header": rawRequest(), "version 1": "PROXY TCP4 203.0.113.5 10.0.0.1 5000 443\r\n" + rawRequest(),
		"too long": proxySignature + "\x21\x11\xff\xff" + rawRequest(), "too short": proxySignature + "\x21\x11\x00\x00" + rawRequest(),
	} {
		p, status := r.sends(r.via, b)
		if n++; status != "400" || r.metric("handshakes_refused_total", "proxy") != n {
			t.Errorf("%s: answer %s", name, status)
		}
		if _, err := io.Copy(io.Discard, p); err != nil {
			t.Errorf("%s: not closed: %v", name, err)
		}
	}
	if log := r.log.String(); strings.Count(log, "PROXY_LISTEN is refused") != 1 || !strings.Contains(log, "problem=") {
		t.Errorf("log %q, want a line a second", log)
	}
	// On the other listener a header is no request.
	if _, status := r.sends(r.addr, proxyHeader("203.0.113.5:5000")+rawRequest()); status != "400" {
		t.Errorf("a header where none is expected: answer %s", status)
	}
	if n := r.metric("handshakes_refused_total", "malformed"); n != 1 {
		t.Errorf("%v are malformed", n)
	}
}

// A header has the time of a handshake, together with the request behind it.
func TestProxyProtocolTakesTooLong(t *testing.T) {
	t.Parallel()
	r := behind(t, func(c *socket.Config) { c.Times.Handshake = 200 * time.Millisecond })
	header := proxyHeader("203.0.113.5:5000")
	for _, part := range []string{"", header[:1], header[:15], header[:len(header)-1], header, header + "GET /ws"} {
		p := r.connectTo(r.via)
		p.raw([]byte(part))
		if s := p.status(); s != "408" {
			t.Errorf("%d bytes and no more: answer %s", len(part), s)
		}
	}
	eventually(t, "nothing is lent", func() bool { return r.metric("buffered_bytes") == 0 && r.metric("connections_arriving") == 0 })
}

// Both headers together may be as long as each alone.
func TestProxyProtocolLongest(t *testing.T) {
	r := behind(t, nil)
	header := proxySignature + "\x21\x11\x07\xf0\xcb\x00\x71\x05\x0a\x00\x00\x01\x13\x88\x01\xbb" + strings.Repeat("x", 2048-16-12)
	request := rawRequest("X-A: ")
	request = rawRequest("X-A: " + strings.Repeat("a", handshake.MaxBytes-len(request)))
	if _, status := r.sends(r.via, header+request); status != "101" {
		t.Errorf("answer %s", status)
	}
	if _, status := r.sends(r.via, header+strings.Replace(request, "X-A: ", "X-A: a", 1)); status != "431" {
		t.Errorf("a byte more: answer %s", status)
	}
}

// An address that connects too often is refused, and told when to come back; others are
// not touched, whether they come through the same proxy or not.
func TestAttempts(t *testing.T) {
	r := behind(t, func(c *socket.Config) { c.Attempts = 3 })
	try := func(addr, b string) string {
		t.Helper()
		p, status := r.sends(addr, b)
		_ = p.Close()
		return status
	}
	from := func(client string) string { return rawRequest("X-Forwarded-For: " + client) }
	begin := time.Now()
	in, refused := 0, 0
	for range 100 {
		switch s := try(r.addr, from("203.0.113.5")); s {
		case "101":
			in++
		case "429":
			refused++
		default:
			t.Fatalf("answer %s", s)
		}
	}
	if most := 30 + 3*int(1+time.Since(begin).Seconds()); in < 30 || in > most {
		t.Errorf("%d of 100 got in, want 30 and 3 a second", in)
	}
	if n := r.metric("handshakes_refused_total", "address"); int(n) != refused || refused == 0 {
		t.Errorf("%v are counted, %d refused", n, refused)
	}
	if log := r.log.String(); !strings.Contains(log, "ATTEMPT_RATE") || !strings.Contains(log, "client=203.0.113.5 ") || strings.Count(log, "\n") > 1+int(time.Since(begin).Seconds()) {
		t.Errorf("log %q", log)
	}
	for name, s := range map[string]string{
		"a neighbour": try(r.addr, from("203.0.113.6")), "an IPv6 client": try(r.addr, from("2001:db9::1")),
		"its neighbour by the PROXY protocol": try(r.via, proxyHeader("203.0.113.7:1")+rawRequest()),
		"a proxy of ours":                     try(r.addr, from("10.1.1.1")),
	} {
		if s != "101" {
			t.Errorf("%s is refused with %s", name, s)
		}
	}
	for range 100 {
		if s := try(r.addr, rawRequest()); s != "101" {
			t.Fatalf("the proxy itself is refused with %s", s)
		}
	}
	// It is one address on both listeners.
	p := r.connectTo(r.via)
	p.raw([]byte(proxyHeader("203.0.113.5:1") + rawRequest()))
	if head := p.head(); !strings.HasPrefix(head, "HTTP/1.1 429 Too Many Requests\r\n") || !strings.Contains(head, "\r\nRetry-After: ") {
		t.Errorf("by the PROXY protocol the answer is %q", head)
	}
}

// Only what would be opened counts. Any page can make its visitors' browsers send the rest:
// it must not keep those out who have the same address.
func TestAttemptsCountHandshakesAlone(t *testing.T) {
	r := behind(t, func(c *socket.Config) { c.Attempts = 1 })
	const client = "X-Forwarded-For: 203.0.113.5"
	for name, c := range map[string]struct{ request, status string }{
		"a foreign page":  {rawRequest(client, "Origin: https://evil.example"), "403"},
		"an image":        {"GET /ws HTTP/1.1\r\nHost: a\r\n" + client + "\r\n\r\n", "426"},
		"a form":          {"POST /ws HTTP/1.1\r\nHost: a\r\n" + client + "\r\n\r\n", "405"},
		"another path":    {strings.Replace(rawRequest(client), "/ws", "/", 1), "404"},
		"another version": {strings.Replace(rawRequest(client), "Version: 13", "Version: 8", 1), "426"},
		"no user":         {strings.Replace(rawRequest(client), "/ws", "/ws/%zz", 1), "400"},
	} {
		for range 3 * attempts.Burst {
			p, status := r.sends(r.addr, c.request)
			if _ = p.Close(); status != c.status {
				t.Fatalf("%s: answer %s, want %s", name, status, c.status)
			}
		}
	}
	for i := range attempts.Burst { // all ten seconds' worth are left
		if _, status := r.sends(r.addr, rawRequest(client)); status != "101" {
			t.Fatalf("handshake %d behind them: answer %s", i+1, status)
		}
	}
}

// Without a bound, or without a trusted proxy, everybody may try.
func TestNoBoundForAttempts(t *testing.T) {
	for name, r := range map[string]*rig{
		"no bound": behind(t, nil),
		"no proxy": serve(t, func(c *socket.Config, _ *rig) { c.Attempts = 1 }),
	} {
		for range 50 {
			if p, s := r.sends(r.addr, rawRequest("X-Forwarded-For: 203.0.113.5")); s != "101" {
				t.Fatalf("%s: answer %s", name, s)
			} else {
				_ = p.Close()
			}
		}
	}
}

// What is logged of a page names the client, and how it came; clear text is counted.
func TestSchemeIsTold(t *testing.T) {
	r := behind(t, nil)
	if _, s := r.sends(r.addr, rawRequest("X-Forwarded-For: 203.0.113.5", "X-Forwarded-Proto: https", "Origin: https://evil.example")); s != "403" {
		t.Fatalf("answer %s", s)
	}
	if log := r.log.String(); !strings.Contains(log, "origin=https://evil.example client=203.0.113.5 scheme=https") {
		t.Errorf("log %q", log)
	}
	for scheme, want := range map[string]float64{"https": 0, "http": 1, "": 1} {
		r := behind(t, nil)
		if _, s := r.sends(r.addr, rawRequest("X-Forwarded-Proto: "+scheme)); s != "101" {
			t.Fatalf("answer %s", s)
		}
		if scheme == "" {
			want = 0
		}
		eventually(t, "the handshake is counted", func() bool { return r.metric("handshakes_total") == 1 })
		if n := r.metric("handshakes_in_clear_total"); n != want {
			t.Errorf("%q: %v in clear text", scheme, n)
		}
	}
}
