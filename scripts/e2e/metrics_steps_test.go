package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// jwks serves a key that nobody has.
func jwks(t *testing.T) (url string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"k1","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(keys)) }))
	t.Cleanup(srv.Close)
	return srv.URL
}

// play is the system of TestMetrics, and what its steps share.
type play struct {
	t     *testing.T
	s     *system
	store *servers.FerretServer
	c     *raw // alice at the first edge
}

// newMetricScenario boots a system, and returns what is to happen to it.
func newMetricScenario(t *testing.T) (*system, []step) {
	store := servers.FerretServerOf(t)
	p := &play{t: t, store: store}
	p.s = start(t, store.URI()+"metrics", "FRAME_RATE=20", "BYTE_RATE=14000", "SWEEP_INTERVAL=1s", "JWT_JWKS_URL="+jwks(t))
	const e, w = "wirepost_edge_", "wirepost_worker_"
	return p.s, []step{
		{"nothing", func() {}, nil},
		{"a client logs in", p.login, []string{e + "accepted_total", e + "handshakes_total", e + "logins_total", e + "auth_verified_total", e + "connections",
			e + "downlink_attached_total{result=fresh}", e + "downlink_users", e + "downlink_marker_seconds", e + "messages_in_total", e + "frames_out_total",
			e + "bytes_in_total", e + "bytes_out_total", e + "uplink_events_total{outcome=stored}", e + "uplink_publish_seconds",
			w + "events_total{type=im.connected}", w + "store_seconds{op=sessions}", w + "lane_batch_messages", w + "lane_messages_total"}},
		{"it beats and pings", p.beat, []string{e + "heartbeats_total", e + "pings_total"}},
		{"it sends a message", func() { p.send("c1", "hello") }, []string{e + "relayed_total", e + "delivered_total", e + "echo_seconds",
			e + "downlink_frames_total{fate=delivered}", w + "messages_total{outcome=stored}", w + "downlink_frames_total", w + "store_seconds{op=append}",
			w + "store_seconds{op=insert}", w + "store_append_rounds", w + "store_joined_messages"}},
		{"it sends it again", func() { p.send("c1", "hello") }, []string{w + "messages_total{outcome=known}", w + "store_twins_total"}},
		{"it uses the key again", func() { p.send("c1", "other") }, []string{w + "messages_total{outcome=reused}", w + "refusals_total{code=1008}"}},
		{"it asks for history", func() { p.ask(`"bizOptModule":1,"receivedUserId":"bob","reqId":"h"`) },
			[]string{w + "store_seconds{op=history}", w + "downlink_replies_total", e + "downlink_frames_total{fate=core}"}},
		{"it sends too many frames", p.flood, []string{e + "limited_frames_total", e + "connections_limited"}},
		{"it sends too many bytes", p.bulk, []string{e + "limited_bytes_total", e + "buffered_bytes"}},
		{"handshakes are bad", p.badHandshakes, []string{e + "handshakes_refused_total{reason=path}", e + "handshakes_lost_total", e + "connections_arriving"}},
		{"a token is bad", p.badToken, []string{e + "auth_refused_total{reason=malformed}", e + "closed_total{code=4501,reason=token_refused}"}},
		{"a service publishes nonsense", p.nonsense, []string{e + "downlink_bad_payloads_total"}},
		{"an event is malformed", p.malformed, []string{w + "lane_dead_total"}},
		{"the client goes", func() { _ = p.c.nc.Close() }, []string{e + "closed_total{code=1006,reason=lost}", w + "events_total{type=im.disconnected}"}},
		{"the store goes", p.storeGoes, []string{w + "store_errors_total", w + "lane_retries_total", w + "lane_oldest_seconds", w + "lane_lag", "wirepost_ready{check=store}"}},
		{"the store is back", p.storeComes, []string{w + "messages_total{outcome=stored}", "wirepost_ready{check=store}"}},
		{"NATS goes", p.natsGoes, []string{e + "uplink_in_flight", e + "uplink_oldest_seconds", e + "uplink_retries_total{cause=disconnected}"}},
		{"NATS is back, empty", p.natsComes, []string{e + "nats_reconnects_total", w + "nats_reconnects_total", e + "downlink_disturbances_total{cause=reconnect}",
			e + "downlink_epochs_total", e + "downlink_resyncs_total", e + "downlink_sweeps_total", e + "downlink_marker_retries_total", w + "streams_made_total",
			w + "lane_resets_total", w + "lane_take_overs_total"}},
		{"an edge is busy", p.login, []string{e + "memory_used_bytes"}},
		{"a token has an unknown key", p.unknownKey, []string{e + "auth_refused_total{reason=unknown_key}", e + "auth_jwks_fetches_total{result=ok}",
			e + "auth_jwks_fetched_timestamp_seconds"}},
	}
}

func (p *play) login() { p.c = loginRaw(p.t, p.s.url(0), "alice") }

func (p *play) beat() {
	p.c.frame(ws.MaskFrame(ws.NewPingFrame([]byte("p"))))
	p.c.text(`{"msgType":1}`)
	p.c.next()
}

func chatText(cid, body string) string {
	return fmt.Sprintf(`{"msgType":3,"receivedUserId":"bob","bizType":1,"bizOptModule":1,"clientMsgId":%q,"msgBody":%q}`, cid, body)
}

func (p *play) send(cid, body string) {
	p.c.text(chatText(cid, body))
	p.c.next()
}

func (p *play) ask(members string) {
	p.c.text(`{"msgType":3,"bizType":2,"msgBody":{},` + members + `}`)
	p.c.next()
}

// flood sends more frames at once than ten seconds' worth.
func (p *play) flood() {
	p.c.frame(ws.MaskFrame(ws.NewPingFrame(nil)))
	for range 300 {
		p.c.text(`{"msgType":1}`)
	}
}

func (p *play) bulk() {
	c := loginRaw(p.t, p.s.url(0), "carol")
	for i := range 2 {
		c.text(chatText(fmt.Sprint("big", i), strings.Repeat("x", 100<<10)))
	}
}

func (p *play) badHandshakes() {
	if c, status := dialRaw(p.t, strings.TrimSuffix(p.s.url(0), "/ws")+"/other", nil); c != nil || status != http.StatusNotFound {
		p.t.Errorf("another path is answered with %d", status)
	}
	for _, hold := range []bool{false, true} {
		c, err := net.Dial("tcp", p.s.edges[0].addr)
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := c.Write([]byte("GET /ws HTTP/1.1\r\n")); err != nil {
			p.t.Fatal(err)
		}
		if !hold {
			_ = c.Close()
			continue
		}
		p.t.Cleanup(func() { _ = c.Close() })
	}
}

func (p *play) badToken() {
	c, _ := dialRaw(p.t, p.s.url(0), nil)
	c.text(loginText("nonsense"))
	if code := c.closeCode(); code != protocol.CloseTokenRefused {
		p.t.Errorf("closed with %d", code)
	}
}

// unknownKey shows a token that is signed by a key which the JWKS may have by now.
func (p *play) unknownKey() {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	c, _ := dialRaw(p.t, p.s.url(0), nil)
	c.text(loginText(part(`{"alg":"EdDSA","kid":"k2"}`) + "." + part(`{"sub":"alice","exp":4102444800}`) + "." + part(strings.Repeat("x", ed25519.SignatureSize))))
	c.closeCode()
}

func (p *play) nonsense() {
	alice := userid.MustParse("alice")
	if err := p.s.nats.Conn(p.t).Publish(subject.Down(subject.Shard(alice, stream.DefaultShards), alice), []byte("nonsense")); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) malformed() {
	alice := userid.MustParse("alice")
	if err := p.s.nats.Conn(p.t).Publish(subject.Up(subject.Lane(alice, stream.DefaultLanes), alice), []byte("nonsense")); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) storeGoes() {
	p.login()
	p.store.Stop()
	p.c.text(chatText("patient", "x"))
}

func (p *play) storeComes() {
	if err := p.store.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// natsGoes ends the server while a frame is on its way.
func (p *play) natsGoes() {
	for { // the echo of what waited for the store
		if m := p.c.next(); m.Seq > 0 {
			break
		}
	}
	p.s.nats.Shutdown()
	p.c.text(chatText("homeless", "x"))
}

func (p *play) natsComes() { p.s.wipeNATS() }
