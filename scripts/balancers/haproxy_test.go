package balancers

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// When no edge is there HAProxy tells clients to come back, and no log of it has a token in
// it, wherever a client puts it. (nginx: scripts/load/nginx.)
func TestHAProxyAlone(t *testing.T) {
	t.Parallel()
	const secret = "eyJhbGciOiJIUzI1NiJ9"
	header := http.Header{"Authorization": {"Bearer " + secret}, "Sec-Websocket-Protocol": {"im.token." + secret}, "Cookie": {"t=" + secret},
		"Referer": {"http://a/?t=" + secret}, "User-Agent": {secret}, "X-Forwarded-For": {secret}}
	nobody := []string{free(t), free(t)}
	r := &road{from: "127.0.2.2", layers: []*layer{startHAProxy(t, "http.cfg", "", nobody, nobody)}}
	res := r.get(t, "/ws/ann?token="+secret, header)
	if after := res.Header.Get("Retry-After"); res.StatusCode != http.StatusServiceUnavailable || len(after) != 1 || after < "1" || after > "4" {
		t.Errorf("answer %s, Retry-After %q", res.Status, after)
	}
	if res := r.get(t, "/elsewhere?token="+secret, header); res.StatusCode != http.StatusNotFound {
		t.Errorf("another path is answered %s", res.Status)
	}
	broken, err := net.Dial("tcp", r.layers[0].addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broken.Close() }()
	if _, err := fmt.Fprintf(broken, "GET /ws?token=%s HTTP/1.1\r\nHost\x00: %s\r\n\r\n", secret, secret); err != nil {
		t.Fatal(err)
	}
	tcp := &road{from: "127.0.2.3", layers: []*layer{startHAProxy(t, "tcp.cfg", "", shared.proxyListens(), shared.admins())}}
	tcp.get(t, "/ws/ann?token="+secret, http.Header{"Origin": {"https://evil.example"}, "X-A": {secret}})
	eventually(t, 20*time.Second, "all is logged", func() bool {
		return strings.Count(r.layers[0].output(t), "client=127.0.") >= 3 && strings.Contains(tcp.layers[0].output(t), "client=127.0.2.3")
	})
	for _, l := range []*layer{r.layers[0], tcp.layers[0]} {
		if log := l.output(t); strings.Contains(log, secret) {
			t.Errorf("a token is in the log:\n%s", log)
		}
	}
	if log := r.layers[0].output(t); !strings.Contains(log, "path=/ws/ann status=503") {
		t.Errorf("the log: %s", log)
	}
}

// A handshake finds the one edge that takes it, whether the other is gone or goes away.
func TestHAProxyTriesAnother(t *testing.T) {
	t.Parallel()
	leaving := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(leaving.Close)
	edge, ready := shared.edges[0], shared.admins()[:1]
	for name, other := range map[string]string{"gone": free(t), "leaving": leaving.Listener.Addr().String()} {
		// Its check says that the other one is ready: it has only just ended.
		l := startHAProxy(t, "http.cfg", "", []string{other, edge.listen}, append(ready, ready...))
		r := &road{from: "127.0.2.4", layers: []*layer{l}}
		for i := range 20 {
			p, err := r.login(t.Context(), token(t, "another-"+name), nil)
			if err != nil {
				t.Fatalf("%s: try %d: %v", name, i, err)
			}
			_ = p.Close()
		}
	}
}
