package balancers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
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

// quiet is longer than any timeout in the shipped configurations.
const quiet = 78 * time.Second

// A socket lives for as long as it sends heartbeats, or answers pings. One that does neither
// is closed by its edge, which says why: no balancer is quicker.
func TestSilence(t *testing.T) {
	t.Parallel()
	onEachWay(t, shared, func(t *testing.T, r *road) {
		var all sync.WaitGroup
		for kind, beats := range map[string]time.Duration{"heartbeats": 25 * time.Second, "pongs": 0} {
			all.Go(func() {
				if err := stays(r, token(t, r.slug()+"-"+kind), beats); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			})
		}
		all.Go(func() {
			if err := isToldToGo(r, token(t, r.slug()+"-mute")); err != nil {
				t.Errorf("mute: %v", err)
			}
		})
		all.Wait()
	})
}

// stays lets a client send a heartbeat now and then, or answer pings when it sends none, and
// asks it at the end whether it is still there.
func stays(r *road, tok string, beats time.Duration) error {
	p, err := r.login(context.Background(), tok, nil)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	began := time.Now()
	end := time.NewTimer(quiet)
	defer end.Stop()
	beat := make(<-chan time.Time)
	if beats > 0 {
		tick := time.NewTicker(beats)
		defer tick.Stop()
		beat = tick.C
	}
	frames, gone := make(chan ws.Frame, 16), make(chan error, 1)
	go func() {
		for {
			f, err := p.next()
			if err != nil {
				gone <- err
				return
			}
			frames <- f
		}
	}()
	for asked := false; ; {
		err = nil
		select {
		case err := <-gone:
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		case f := <-frames:
			switch {
			case f.Header.OpCode == ws.OpClose:
				return fmt.Errorf("after %v: closed with %q", time.Since(began), f.Payload)
			case f.Header.OpCode == ws.OpPing && beats == 0:
				err = p.send(ws.OpPong, f.Payload)
			case asked && bytes.Contains(f.Payload, []byte(`"msgType":1`)):
				return nil
			}
		case <-beat:
			err = p.send(ws.OpText, []byte(plainHeartbeat))
		case <-end.C:
			asked = true
			end.Reset(10 * time.Second) // for the answer
			if time.Since(began) > quiet+5*time.Second {
				return fmt.Errorf("after %v: no answer", time.Since(began))
			}
			err = p.send(ws.OpText, []byte(plainHeartbeat))
		}
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		}
	}
}

// isToldToGo lets a client be silent, and wants the edge's word for it.
func isToldToGo(r *road, tok string) error {
	p, err := r.login(context.Background(), tok, nil)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	began := time.Now()
	_ = p.SetReadDeadline(began.Add(quiet))
	for {
		f, err := p.next()
		if err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began), err)
		}
		if f.Header.OpCode == ws.OpClose {
			if code, reason := ws.ParseCloseFrameData(f.Payload); int(code) != protocol.ClosePingTimeout {
				return fmt.Errorf("after %v: closed with %d %q", time.Since(began), code, reason)
			}
			return nil
		}
	}
}

// While each layer reads its configuration anew, twice, nothing is lost: those who are
// connected stay, their messages arrive, and newcomers come in.
func TestReload(t *testing.T) {
	t.Parallel()
	onEachWay(t, shared, func(t *testing.T, r *road) {
		ann, bob := r.device(t, r.slug()+"-ann"), r.device(t, r.slug()+"-bob")
		stop := chat(t, ann, bob, r.slug()+"-bob")
		came, end := r.newcomers(t, r.slug()+"-newcomer")
		for range 2 {
			for _, l := range r.layers {
				l.renew(t)
				more := came() + 20
				eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= more || t.Failed() })
			}
		}
		end()
		stop()
		for name, d := range map[string]*device{"ann": ann, "bob": bob} {
			if _, logins, ends := d.seen(); logins != 1 || len(ends) > 0 {
				t.Errorf("%s was connected %d times: %v", name, logins, ends)
			}
		}
		t.Logf("%d newcomers", came())
	})
}

// An edge that goes away takes nobody with it: its clients go on at the other one, and
// newcomers are not refused at any moment.
func TestEdgeLeaves(t *testing.T) {
	t.Parallel()
	s := &system{dir: t.TempDir(), bin: shared.bin, nats: shared.nats}
	// Time for HAProxy to notice: 2 s by its configuration.
	pair, err := s.pair("leaving", "DRAIN_NOTICE=4s", "LOG_FORMAT=text")
	t.Cleanup(func() {
		for _, e := range pair {
			e.kill()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.edges = pair
	var there sync.WaitGroup
	there.Add(len(ways))
	leave := sync.OnceFunc(func() {
		there.Wait()
		_ = pair[0].cmd.Process.Signal(syscall.SIGTERM)
		<-pair[0].done
	})
	onEachWay(t, s, func(t *testing.T, r *road) {
		arrived := sync.OnceFunc(there.Done)
		defer arrived()
		ann, bob := r.device(t, r.slug()+"-carol"), r.device(t, r.slug()+"-dave")
		stop := chat(t, ann, bob, r.slug()+"-dave")
		came, end := r.newcomers(t, r.slug()+"-guest")
		eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= 20 || t.Failed() })
		arrived()
		leave()
		more := came() + 20
		eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= more || t.Failed() })
		end()
		stop()
		t.Logf("%d newcomers", came())
	})
	if code := pair[0].cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the edge ended with %d:\n%s", code, pair[0].text())
	}
}

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
