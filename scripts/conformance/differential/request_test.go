package differential

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/scripts/conformance"
)

// rules let every browser page of this machine in: origins are no matter of parsing.
var rules = func() handshake.Rules {
	o, err := handshake.ParseOrigins([]string{"http://localhost:*", "null"})
	if err != nil {
		panic(err)
	}
	return handshake.Rules{Prefix: conformance.Path, Origins: o}
}()

// theirs are the reasons for which gorilla refuses what the edge accepts, and may not.
var theirs = []struct {
	why  string
	said func(http.Header) bool
}{
	{"RFC 9110 section 5.6.1.2: a recipient ignores empty elements of a list; gorilla reads no further", func(h http.Header) bool {
		return listed(h, func(item string) bool { return item == "" })
	}},
	{"RFC 9110 section 7.8: a protocol in Upgrade may have a version; gorilla reads no further", func(h http.Header) bool {
		return listed(h, func(item string) bool { return strings.Contains(item, "/") })
	}},
}

// listed reports whether an element of Connection or Upgrade is such.
func listed(h http.Header, is func(string) bool) bool {
	for _, name := range []string{"Connection", "Upgrade"} {
		for _, line := range h[name] {
			for item := range strings.SplitSeq(line, ",") {
				if is(strings.Trim(item, " \t")) {
					return true
				}
			}
		}
	}
	return false
}

// requestsDiffer says what is wrong when the edge accepts in: the other one must accept
// it, with the same answer, and understand the same of it.
func requestsDiffer(in []byte) error {
	var scan handshake.Scan
	n, refused := scan.End(in)
	if n == 0 || refused != nil {
		return nil
	}
	req, _, refused := rules.Read(in[:n])
	if refused != nil {
		return nil
	}
	m, err := answered(string(in[:n]), nil)
	if err != nil {
		return err
	}
	sent := m.out.Bytes()
	if m.request == nil || !bytes.HasPrefix(sent, []byte("HTTP/1.1 101 ")) {
		if bytes.HasPrefix(sent, []byte("HTTP/1.1 417 ")) {
			return nil // RFC 9110 section 10.1.1: who does not know an expectation may refuse or ignore it
		}
		for _, rule := range theirs {
			if m.request != nil && rule.said(m.request.Header) {
				return nil
			}
		}
		return fmt.Errorf("the edge accepts what is answered %.200q", sent)
	}
	return sameRequest(req, m.request, sent)
}

// sameRequest compares what both understood.
func sameRequest(req handshake.Request, other *http.Request, sent []byte) error {
	mine, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(req.Append(nil))), nil)
	if err != nil {
		return fmt.Errorf("the edge's answer: %w", err)
	}
	_ = mine.Body.Close()
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(sent)), nil)
	if err != nil {
		return fmt.Errorf("the other answer: %w", err)
	}
	_ = answer.Body.Close()
	if a, b := mine.Header.Get("Sec-WebSocket-Accept"), answer.Header.Get("Sec-WebSocket-Accept"); a != b || a == "" {
		return fmt.Errorf("accept %q, there %q", a, b)
	}
	path := conformance.Path
	if !req.User.IsZero() {
		path += "/" + req.User.Raw()
	}
	if other.URL.Path != path {
		return fmt.Errorf("path %q, there %q", path, other.URL.Path)
	}
	if req.Token != "" && !carries(other.Header, req.Token) {
		return fmt.Errorf("the token %q is nowhere in %v", req.Token, other.Header)
	}
	if other.ContentLength != 0 || len(other.TransferEncoding) > 0 {
		return fmt.Errorf("a body of %d bytes, %v", other.ContentLength, other.TransferEncoding)
	}
	for _, name := range []string{"Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version", "Origin", "Authorization"} {
		if n := len(other.Header[name]); n > 1 {
			return fmt.Errorf("%s is there %d times", name, n)
		}
	}
	return nil
}

// carries reports whether the token is one that net/http's reading of the headers holds.
func carries(h http.Header, token string) bool {
	scheme, rest, _ := strings.Cut(h.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "bearer") && strings.TrimLeft(rest, " ") == token {
		return true
	}
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for offer := range strings.SplitSeq(line, ",") {
			if strings.Trim(offer, " \t") == "im.token."+token {
				return true
			}
		}
	}
	return false
}

// requests are seeds: right ones, and ones at the edge of what is right.
func requests() []string {
	base := conformance.Request("localhost")
	with := func(lines string) string { return strings.Replace(base, "\r\n\r\n", "\r\n"+lines+"\r\n\r\n", 1) }
	target := func(s string) string { return strings.Replace(base, "GET /ws ", "GET "+s+" ", 1) }
	swap := func(old, new string) string { return strings.Replace(base, old, new, 1) }
	return []string{
		base, target("/ws/u1001"), target("/ws/a%2Fb%20%2a.%3E%f0%9F%98%80?x=1"), target("/ws?token=%zz"), target("/ws/%"), target("/ws//"),
		target("http://localhost/ws"), target("/ws/a+b"), target("/ws/a;b=c"), target("/ws/a:b@c"), target("/ws?#"), target("/ws/[::1]"),
		with("Authorization: Bearer abc.def"), with("Authorization: bearer  abc"), with("Authorization: Basic abc"), with("Authorization: Bearer\tabc"),
		with("Sec-WebSocket-Protocol: im.json.v1, im.token.abc"), with("Sec-WebSocket-Protocol: im.token.a\r\nSec-WebSocket-Protocol: im.json.v1"),
		with("Origin: http://localhost:8080"), with("Origin: null"), with("Content-Length: 0"), with("Content-Length: 0\r\nContent-Length: 0"),
		with("Content-Length: 00"), with("Transfer-Encoding: identity"), with("X-A:\tb\t"), with("X-A: \xe9\xff"), with("X!#$%&'*+-.^_`|~1: a"), with("X-A: a\tb"),
		with("Expect: 100-continue"), with("Trailer: X"), with("Connection: close"), with("Connection: @, keep-alive"), with("Sec-WebSocket-Extensions: permessage-deflate"),
		swap("Connection: Upgrade", "Connection: keep-alive , upGrade"), swap("Connection: Upgrade", "Connection: @, upgrade"), swap("Connection: Upgrade", "Connection: ,,upgrade"),
		swap("Connection: Upgrade", "Connection: \"a\", upgrade"), swap("Connection: Upgrade", "Connection: upgrade;a=b"), swap("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
		swap("Upgrade: websocket", "Upgrade: HTTP/2.0, websocket"), swap("Upgrade: websocket", "Upgrade: websocket/13"), swap("Host: localhost", "Host: "), swap("Host: localhost", "Host: a b"),
		swap("Host: localhost", "Host: a/b"), swap("Host: localhost", "Host: ü"), swap("Host: localhost", "Host: [::1]:80"), swap("Host: localhost", "HOST:localhost\t"),
		swap("bm9uY2U", "bm9uY2V"), swap("nonce", "x"), swap("Version: 13", "Version: 13 "), swap("Version: 13", "Version: 013"), swap("HTTP/1.1", "HTTP/1.0"), swap("GET", "get"),
	}
}

// TestRequests holds the seeds to the comparison.
func TestRequests(t *testing.T) {
	for _, in := range requests() {
		if err := requestsDiffer([]byte(in)); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestRequestsCanDiffer: what the edge accepts is compared, not waved through.
func TestRequestsCanDiffer(t *testing.T) {
	right := conformance.Request("localhost")
	var scan handshake.Scan
	n, _ := scan.End([]byte(right))
	req, _, refused := rules.Read([]byte(right)[:n])
	if refused != nil {
		t.Fatal(refused)
	}
	for name, other := range map[string]string{
		"another key":  strings.Replace(right, "dGhl", "AAAA", 1),
		"another path": strings.Replace(right, "/ws", "/ws/u1", 1),
	} {
		m, err := answered(other, nil)
		if err != nil {
			t.Fatal(err)
		}
		if sameRequest(req, m.request, m.out.Bytes()) == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
}

// FuzzRequest: whatever opens a WebSocket at the edge opens one at net/http with
// gorilla/websocket, and is understood alike.
func FuzzRequest(f *testing.F) {
	for _, in := range requests() {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if err := requestsDiffer(in); err != nil {
			t.Fatal(err)
		}
	})
}
