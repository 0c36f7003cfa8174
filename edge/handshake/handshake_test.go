package handshake_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/shared/userid"
)

func rules(t testing.TB) *handshake.Rules {
	t.Helper()
	o, err := handshake.ParseOrigins([]string{"http://localhost:*", "https://chat.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return &handshake.Rules{Prefix: "/ws", Origins: o}
}

var base = []string{
	"GET /ws HTTP/1.1", "Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
}

// request is the sample request with changes: "-Name" drops a header, "Name: x" adds
// one, "=Name: x" replaces it, "GET …" and the like replace the request line.
func request(changes ...string) string {
	lines := slices.Clone(base)
	drop := func(name string) {
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
	}
	for _, c := range changes {
		switch {
		case c[0] == '-':
			drop(c[1:])
		case c[0] == '=':
			drop(c[1:strings.IndexByte(c, ':')])
			lines = append(lines, c[1:])
		case c[0] == '>':
			lines[0] = c[1:]
		default:
			lines = append(lines, c)
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func read(r *handshake.Rules, s string) (handshake.Request, int, *handshake.Refusal) {
	var scan handshake.Scan
	n, refused := scan.End([]byte(s))
	if refused != nil || n == 0 {
		return handshake.Request{}, n, refused
	}
	req, _, refused := r.Read([]byte(s[:n]))
	return req, n, refused
}

func TestAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		in          string
		user, token string
		proto       bool
	}{
		"least":                {in: request()},
		"user in path":         {in: request(">GET /ws/u1001 HTTP/1.1"), user: "u1001"},
		"hostile user":         {in: request(">GET /ws/a%2Fb%20%2a.%3E%f0%9F%98%80?x=1 HTTP/1.1"), user: "a/b *.>😀"},
		"plus is no space":     {in: request(">GET /ws/a+b HTTP/1.1"), user: "a+b"},
		"query is ignored":     {in: request(">GET /ws?token=secret HTTP/1.1")},
		"bearer":               {in: request("Authorization: bEARER  abc.def"), token: "abc.def"},
		"another scheme":       {in: request("Authorization: Basic abc")},
		"subprotocol":          {in: request("Sec-WebSocket-Protocol: im.json.v1"), proto: true},
		"token as subprotocol": {in: request("sec-websocket-protocol: im.json.v1, im.token.abc.def"), token: "abc.def", proto: true},
		"in two lines":         {in: request("Sec-WebSocket-Protocol: im.token.a", "Sec-WebSocket-Protocol: im.json.v1"), token: "a", proto: true},
		"same token twice":     {in: request("Authorization: Bearer a", "Sec-WebSocket-Protocol: im.token.a"), token: "a"},
		"lists":                {in: request("=Connection: keep-alive , upGrade", "=Upgrade: h2c, WebSocket")},
		"empty elements":       {in: request("=Connection: ,, upgrade,", "=Upgrade: , websocket")},
		"other protocol":       {in: request("=Upgrade: HTTP/2.0, websocket")},
		"hosts":                {in: request("=Host: [::1%25lo]:8080")},
		"connection twice":     {in: request("Connection: keep-alive")},
		"origin":               {in: request("Origin: https://Chat.example.com")},
		"origin with a port":   {in: request("Origin: http://localhost:8080")},
		"empty body":           {in: request("Content-Length: 0")},
		"64 headers":           {in: request(slices.Repeat([]string{"X-A: b"}, 64-5)...)},
		"8 KiB":                {in: request("X-A: " + strings.Repeat("a", handshake.MaxBytes-len(request("X-A: "))))},
	} {
		t.Run(name, func(t *testing.T) {
			req, n, refused := read(rules(t), c.in+"\x81\x80rest")
			if refused != nil {
				t.Fatalf("refused: %v", refused)
			}
			if n != len(c.in) {
				t.Errorf("length %d, want %d: the bytes behind belong to the frames", n, len(c.in))
			}
			var user userid.ID
			if c.user != "" {
				user = userid.MustParse(c.user)
			}
			if req.User != user || req.Token != c.token {
				t.Errorf("got user %q and token %q", req.User.Raw(), req.Token)
			}
			answer := string(req.Append(nil))
			if !strings.Contains(answer, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") {
				t.Errorf("accept is wrong in %q", answer)
			}
			if strings.Contains(answer, "\r\nSec-WebSocket-Protocol: im.json.v1\r\n") != c.proto || strings.Contains(answer, "token") {
				t.Errorf("subprotocol is wrong in %q", answer)
			}
		})
	}
}

var refused = map[string]struct {
	in     string
	status int
	reason handshake.Reason
}{
	"tls hello":             {"\x16\x03\x01\x02", 400, handshake.ReasonMalformed},
	"empty line first":      {"\r\n" + request(), 400, handshake.ReasonMalformed},
	"bare LF":               {strings.ReplaceAll(request(), "\r\n", "\n"), 400, handshake.ReasonMalformed},
	"post":                  {request(">POST /ws HTTP/1.1"), 405, handshake.ReasonMethod},
	"lower-case get":        {request(">get /ws HTTP/1.1"), 405, handshake.ReasonMethod},
	"http/1.0":              {request(">GET /ws HTTP/1.0"), 400, handshake.ReasonMalformed},
	"http/2 preface":        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, handshake.ReasonMalformed},
	"no version":            {request(">GET /ws"), 400, handshake.ReasonMalformed},
	"two spaces":            {request(">GET  /ws HTTP/1.1"), 400, handshake.ReasonMalformed},
	"absolute target":       {request(">GET http://example.com/ws HTTP/1.1"), 400, handshake.ReasonMalformed},
	"raw utf-8 target":      {request(">GET /ws/é HTTP/1.1"), 400, handshake.ReasonMalformed},
	"foreign path":          {request(">GET / HTTP/1.1"), 404, handshake.ReasonPath},
	"path like the prefix":  {request(">GET /wsx HTTP/1.1"), 404, handshake.ReasonPath},
	"empty user":            {request(">GET /ws/ HTTP/1.1"), 404, handshake.ReasonPath},
	"two segments":          {request(">GET /ws/a/b HTTP/1.1"), 404, handshake.ReasonPath},
	"bad percent":           {request(">GET /ws/a%2 HTTP/1.1"), 400, handshake.ReasonUser},
	"bad hex":               {request(">GET /ws/a%zz HTTP/1.1"), 400, handshake.ReasonUser},
	"user is not utf-8":     {request(">GET /ws/%ff HTTP/1.1"), 400, handshake.ReasonUser},
	"user of 300 bytes":     {request(">GET /ws/" + strings.Repeat("a", 300) + " HTTP/1.1"), 400, handshake.ReasonUser},
	"no host":               {request("-Host"), 400, handshake.ReasonMalformed},
	"host twice":            {request("Host: b"), 400, handshake.ReasonMalformed},
	"host with a space":     {request("=Host: a b"), 400, handshake.ReasonMalformed},
	"host with a path":      {request("=Host: a/b"), 400, handshake.ReasonMalformed},
	"host in UTF-8":         {request("=Host: ü"), 400, handshake.ReasonMalformed},
	"connection no token":   {request("=Connection: @, upgrade"), 400, handshake.ReasonMalformed},
	"connection quoted":     {request("=Connection: \"a\", upgrade"), 400, handshake.ReasonMalformed},
	"upgrade no protocol":   {request("=Upgrade: @, websocket"), 400, handshake.ReasonMalformed},
	"no upgrade":            {request("-Upgrade"), 426, handshake.ReasonUpgrade},
	"upgrade twice":         {request("Upgrade: websocket"), 400, handshake.ReasonMalformed},
	"other upgrade":         {request("=Upgrade: h2c"), 426, handshake.ReasonUpgrade},
	"no connection":         {request("-Connection"), 426, handshake.ReasonUpgrade},
	"no key":                {request("-Sec-WebSocket-Key"), 400, handshake.ReasonKey},
	"short key":             {request("=Sec-WebSocket-Key: AAAA"), 400, handshake.ReasonKey},
	"key is no base64":      {request("=Sec-WebSocket-Key: ????????????????????????"), 400, handshake.ReasonKey},
	"key of 17 bytes":       {request("=Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="), 400, handshake.ReasonKey},
	"key twice":             {request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, handshake.ReasonMalformed},
	"version 8":             {request("=Sec-WebSocket-Version: 8"), 426, handshake.ReasonVersion},
	"version twice":         {request("Sec-WebSocket-Version: 13"), 400, handshake.ReasonMalformed},
	"foreign origin":        {request("Origin: https://evil.example.com"), 403, handshake.ReasonOrigin},
	"origin as a prefix":    {request("Origin: https://chat.example.com.evil.com"), 403, handshake.ReasonOrigin},
	"origin, other scheme":  {request("Origin: http://chat.example.com"), 403, handshake.ReasonOrigin},
	"origin, port not any":  {request("Origin: https://chat.example.com:8443"), 403, handshake.ReasonOrigin},
	"origin, port no digit": {request("Origin: http://localhost:80.evil.com"), 403, handshake.ReasonOrigin},
	"null origin":           {request("Origin: null"), 403, handshake.ReasonOrigin},
	"empty origin":          {request("Origin:"), 403, handshake.ReasonOrigin},
	"origin twice":          {request("Origin: http://localhost", "Origin: http://localhost"), 400, handshake.ReasonMalformed},
	"authorization twice":   {request("Authorization: Bearer a", "Authorization: Bearer a"), 400, handshake.ReasonMalformed},
	"two tokens":            {request("Authorization: Bearer a", "Sec-WebSocket-Protocol: im.token.b"), 400, handshake.ReasonToken},
	"body":                  {request("Content-Length: 5"), 400, handshake.ReasonMalformed},
	"chunked body":          {request("Transfer-Encoding: chunked"), 400, handshake.ReasonMalformed},
	"folded line":           {request("X-A: b", " folded"), 400, handshake.ReasonMalformed},
	"space before colon":    {request("X-A : b"), 400, handshake.ReasonMalformed},
	"no colon":              {request("X-A"), 400, handshake.ReasonMalformed},
	"no name":               {request(": x"), 400, handshake.ReasonMalformed},
	"NUL in a value":        {request("X-A: a\x00b"), 400, handshake.ReasonMalformed},
	"bare CR in a value":    {request("X-A: a\rHost: b"), 400, handshake.ReasonMalformed},
	"65 headers":            {request(slices.Repeat([]string{"X-A: b"}, 65-5)...), 431, handshake.ReasonTooLarge},
	"8 KiB and a byte":      {request("X-A: " + strings.Repeat("a", handshake.MaxBytes+1-len(request("X-A: ")))), 431, handshake.ReasonTooLarge},
	"endless line":          {"GET /" + strings.Repeat("a", handshake.MaxBytes), 431, handshake.ReasonTooLarge},
}

func TestRefused(t *testing.T) {
	for name, c := range refused {
		t.Run(name, func(t *testing.T) {
			_, _, refused := read(rules(t), c.in)
			if refused == nil {
				t.Fatal("accepted, or incomplete")
			}
			if refused.Status != c.status || refused.Reason != c.reason {
				t.Errorf("got %d %s %q", refused.Status, refused.Reason, refused.Text)
			}
			answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(refused.Append(nil))), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != c.status || string(body) != refused.Text+"\n" {
				t.Errorf("answer %d %q, %v", answer.StatusCode, body, err)
			}
		})
	}
}

func TestAnswersCarryTheirHeaders(t *testing.T) {
	for _, c := range []struct {
		r            *handshake.Refusal
		status       int
		header, want string
	}{
		{handshake.RefuseDraining, 503, "Retry-After", "1"},
		{handshake.RefuseTimeout, 408, "Connection", "close"},
		{refusal(t, "post"), 405, "Allow", "GET"},
		{refusal(t, "no upgrade"), 426, "Upgrade", "websocket"},
		{refusal(t, "version 8"), 426, "Sec-WebSocket-Version", "13"},
	} {
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.r.Append(nil))), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		got := answer.Header.Get(c.header)
		if c.header == "Connection" && answer.Close {
			got = "close" // net/http takes it away
		}
		if answer.StatusCode != c.status || got != c.want {
			t.Errorf("%d %s: %q, want %d %q", answer.StatusCode, c.header, got, c.status, c.want)
		}
	}
}

// Who is refused together does not come back together.
func TestRetryAfterIsSpread(t *testing.T) {
	for _, c := range []struct {
		r    *handshake.Refusal
		most int
	}{{handshake.RefuseConnections, 10}, {handshake.RefuseArriving, 5}, {handshake.RefuseMemory, 10}} {
		seen := map[int]int{}
		for range 1000 {
			answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.r.Append(nil))), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			n, err := strconv.Atoi(answer.Header.Get("Retry-After"))
			if err != nil || n < 1 || n > c.most || answer.StatusCode != 503 {
				t.Fatalf("%s: %d, Retry-After %q", c.r.Reason, answer.StatusCode, answer.Header.Get("Retry-After"))
			}
			seen[n]++
		}
		for n := 1; n <= c.most; n++ { // 0 of 1000 at one in ten: a chance of 10^-46
			if seen[n] == 0 {
				t.Errorf("%s: nobody comes back after %d s: %v", c.r.Reason, n, seen)
			}
		}
	}
}

func refusal(t *testing.T, name string) *handshake.Refusal {
	t.Helper()
	_, _, r := read(rules(t), refused[name].in)
	return r
}

// Byte by byte the result is that of the whole, and nothing is decided too late or wrong.
func TestAnyChunking(t *testing.T) {
	all := []string{request(), request("Authorization: Bearer x")}
	for _, c := range refused {
		all = append(all, c.in)
	}
	for _, in := range all {
		var whole, scan handshake.Scan
		wantN, wantR := whole.End([]byte(in))
		var n int
		var r *handshake.Refusal
		for i := 1; i <= len(in) && n == 0 && r == nil; i++ {
			n, r = scan.End([]byte(in[:i]))
		}
		if n != wantN || r != wantR {
			t.Errorf("%q: %d, %v; whole %d, %v", in, n, r, wantN, wantR)
		}
	}
}

func TestBadOriginLists(t *testing.T) {
	for _, bad := range []string{"*", "http://*", "http://*.example.com", "example.com", "https://example.com/", "https://u@example.com", "ftp://x", "https://a:*:*"} {
		if _, err := handshake.ParseOrigins([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	none, err := handshake.ParseOrigins([]string{" ", ""})
	if err != nil || none.Allow("http://localhost") {
		t.Errorf("an empty list allows an origin, or is an error: %v", err)
	}
}

// The answer is one that another implementation takes.
func TestAnotherImplementationTakesTheAnswer(t *testing.T) {
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	go func() {
		defer func() { _ = server.Close() }()
		var scan handshake.Scan
		var in []byte
		for buf := make([]byte, 7); ; {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			in = append(in, buf[:n]...)
			if end, refused := scan.End(in); refused != nil || end > 0 {
				req, _, refused := rules(t).Read(in[:end])
				if refused != nil {
					t.Error(refused)
				}
				_, _ = server.Write(req.Append(nil))
				return
			}
		}
	}()
	d := ws.Dialer{Protocols: []string{"im.json.v1", "im.token.abc"}}
	_, hs, err := d.Upgrade(client, mustURL("ws://localhost/ws/u1"))
	if err != nil || hs.Protocol != "im.json.v1" {
		t.Fatalf("%v, protocol %q", err, hs.Protocol)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(request()), 3)
	for _, c := range refused {
		f.Add([]byte(c.in), 17)
	}
	r := rules(f)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		var whole, scan handshake.Scan
		n, refused := whole.End(in)
		if n > handshake.MaxBytes || n > len(in) {
			t.Fatalf("length %d of %d", n, len(in))
		}
		if step > 0 {
			var n2 int
			var refused2 *handshake.Refusal
			for i := 0; n2 == 0 && refused2 == nil && i < len(in); {
				i = min(i+step, len(in))
				n2, refused2 = scan.End(in[:i])
			}
			if n2 != n || (refused2 == nil) != (refused == nil) {
				t.Fatalf("in steps of %d: %d, %v; at once %d, %v", step, n2, refused2, n, refused)
			}
		}
		if n == 0 || refused != nil {
			return
		}
		req, _, refused := r.Read(in[:n])
		if refused != nil {
			return
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in[:n])))
		if err != nil {
			t.Skipf("net/http is stricter: %v", err)
		}
		if std.Method != http.MethodGet || !strings.EqualFold(std.Header.Get("Upgrade"), "websocket") && !strings.Contains(std.Header.Get("Upgrade"), ",") {
			t.Fatalf("accepted %q", in[:n])
		}
		if !req.User.IsZero() && std.URL.Path != "/ws/"+req.User.Raw() {
			t.Fatalf("user %q of path %q", req.User.Raw(), std.URL.Path)
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	r := rules(b)
	in := []byte(request(">GET /ws/u1001 HTTP/1.1", "Origin: http://localhost:8080", "User-Agent: Mozilla/5.0",
		"Accept-Encoding: gzip, deflate", "Cache-Control: no-cache", "Sec-WebSocket-Protocol: im.json.v1, im.token."+strings.Repeat("a", 200)))
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		var scan handshake.Scan
		n, _ := scan.End(in)
		req, _, refused := r.Read(in[:n])
		if refused != nil {
			b.Fatal(refused)
		}
		out = req.Append(out[:0])
	}
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}
