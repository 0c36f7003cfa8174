package balancers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// lies are what a client says about itself.
var lies = http.Header{"X-Forwarded-For": {"6.6.6.6"}, "X-Forwarded-Proto": {"gopher"}, "X-Forwarded-Host": {"evil.example"}, "X-Real-Ip": {"6.6.6.6"}}

// The edges learn the client's address and its scheme, and believe none of its lies. Who
// runs a system sees the address in the event im.connected, from where it comes into the
// list of sessions, and both in the line about a page that may not connect.
func TestClientArrives(t *testing.T) {
	t.Parallel()
	nc, err := nats.Connect(shared.nats.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	before := map[string]float64{}
	for _, e := range shared.edges {
		before[e.name] = inClear(t, e)
	}
	onEachWay(t, shared, func(t *testing.T, r *road) {
		edges := map[string]bool{}
		for i := 0; len(edges) < 2; i++ { // both edges
			if i == 40 {
				t.Fatalf("all come to one edge: %v", edges)
			}
			id := userid.MustParse(fmt.Sprintf("%s-%d", r.slug(), i))
			sub, err := nc.SubscribeSync(subject.Up(subject.Lane(id, stream.DefaultLanes), id))
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			p, err := r.login(t.Context(), token(t, id.Raw()), lies)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() }) // least connections: the next one goes to the other edge
			edge, addr := nextConnected(t, sub)
			want := r.from
			if r.port {
				want = p.LocalAddr().String()
			}
			if addr != want {
				t.Errorf("the client is %q at %s, want %q", addr, edge, want)
			}
			edges[edge] = true
		}
		said := fmt.Sprintf("origin=https://evil.example client=%s", r.from)
		foreign := lies.Clone()
		foreign.Set("Origin", "https://evil.example")
		eventually(t, 30*time.Second, "an edge logs "+said+" … scheme="+r.scheme, func() bool { // each line at most once a second
			if res := r.get(t, "/ws", foreign); res.StatusCode != http.StatusForbidden {
				t.Fatalf("a foreign page is answered %s", res.Status)
			}
			return logged(said, "scheme="+r.scheme)
		})
	})
	// Those without TLS are counted, and nobody else.
	for _, e := range shared.edges {
		if n := inClear(t, e); n == before[e.name] {
			t.Errorf("%s has counted nobody in clear text", e.name)
		}
	}
	for _, e := range shared.edges {
		if strings.Contains(e.text(), "6.6.6.6") || strings.Contains(e.text(), "gopher") {
			t.Errorf("%s has believed a lie:\n%s", e.name, e.text())
		}
	}
}

func inClear(t *testing.T, e *process) float64 {
	t.Helper()
	n, err := e.metric("handshakes_in_clear_total")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// nextConnected returns what the next event, which is Connected, tells.
func nextConnected(t *testing.T, sub *nats.Subscription) (edge, addr string) {
	t.Helper()
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := envelope.Parse(m.Header)
	var h envelope.Hello
	if err != nil || ev.Type != envelope.Connected || json.Unmarshal(m.Data, &h) != nil {
		t.Fatalf("event %+v %q: %v", ev, m.Data, err)
	}
	return ev.Edge, h.Addr
}

// logged reports whether an edge has a line with all of the parts.
func logged(parts ...string) bool {
	for _, e := range shared.edges {
		for line := range strings.Lines(e.text()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return true
			}
		}
	}
	return false
}

// Past the balancers nobody is believed: neither on the port of clients, nor on that of the
// PROXY protocol.
func TestPastTheBalancers(t *testing.T) {
	t.Parallel()
	const from = "127.0.2.1"
	e := shared.edges[0]
	clients, proxies := &road{from: from, layers: []*layer{{addr: e.listen}}}, &road{from: from, layers: []*layer{{addr: e.proxied}}}
	foreign := lies.Clone()
	foreign.Set("Origin", "https://evil.example")
	eventually(t, 30*time.Second, "the edge logs who it really is", func() bool {
		clients.get(t, "/ws", foreign)
		return logged("client="+from+":", "scheme=unknown")
	})
	if res := proxies.get(t, "/ws", nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("a stranger at PROXY_LISTEN is answered %s", res.Status)
	}
	eventually(t, 30*time.Second, "the edge logs the stranger", func() bool {
		proxies.get(t, "/ws", nil)
		return logged("PROXY_LISTEN is refused", "peer="+from+":")
	})
}
