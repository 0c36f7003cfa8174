package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/site"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// body marks what people write: no log may hold it.
const body = "what-nobody-but-bob-may-read"

// P11: no token, no part of one, no secret and no message is in any output of edge and
// worker at the most talkative level, whatever goes right or wrong: bad clients, dead
// messages, a store and a NATS that go away. Each line is a JSON object.
func TestNoSecretInAnyLog(t *testing.T) {
	store := servers.FerretServerOf(t)
	s := attacked(t, site.Options{Env: []string{"LOG_LEVEL=debug", "LOG_FORMAT=json", "ALLOWED_ORIGINS=http://good.example"}})
	worker := startWorker(t, s, store.URI()+"secrets")
	var secrets []string // tokens that were shown to the edge
	mint := func(user string, ttl time.Duration, key string) string {
		tok, err := devkeys.Token([]byte(key), user, ttl)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, tok)
		return tok
	}
	good := mint("alice", time.Hour, site.Secret)
	none := strings.Replace(good, ".", ".x", 1) // no JSON any more
	secrets = append(secrets, none)
	for _, tok := range []string{
		good, none,
		mint("alice", -time.Minute, site.Secret),
		mint("alice", time.Hour, "another secret, which the edge does not know at all"),
		mint("", time.Hour, site.Secret),
		"not-a-token-but-long-enough-to-be-looked-for",
	} {
		secrets = append(secrets, tok)
		misuse(t, s, tok)
	}
	p := login(t, s, good)
	p.write(first(good)) // refresh
	p.reply()
	for _, text := range []string{
		army.Message(body), strings.Replace(army.Message(body), `"nobody"`, `""`, 1), army.Message(body) + body, body,
		strings.Replace(army.Message(body), `"bizType":1`, `"bizType":77`, 1), `{"msgType":3,"bizType":2,"bizOptModule":1,"reqId":"h","receivedUserId":"nobody"}`,
		strings.Replace(army.Message(body+" again"), `"nobody"`, `"another"`, 1), // clientMsgId is used
		strings.Replace(army.Message(body), `"c"`, `"c `+body+`"`, 1),
		strings.Replace(army.Message(body), `{`, `{"traceparent":"00-`+body+`",`, 1),
	} {
		p.write(army.Frame(ws.OpText, true, text))
		if b, code := p.next(); code != 0 {
			t.Fatalf("closed with %d behind %q", code, b)
		}
	}
	bury(t, s, worker)
	store.Stop()
	p.write(army.Frame(ws.OpText, true, strings.Replace(army.Message(body), `"c"`, `"c2"`, 1)))
	eventually(t, 20*time.Second, "the worker has noticed that the store is away", func() bool { return strings.Contains(read(t, worker), "batch cannot be committed") })
	if err := store.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the store is back", func() bool { return strings.Contains(read(t, worker), "over: batch cannot be committed") })
	p.write(first(mint("mallory", time.Hour, site.Secret))) // another user's
	if code := p.closed(); code != protocol.CloseTokenRefused {
		t.Errorf("closed with %d", code)
	}
	s.NATS.Shutdown() // reconnects are logged, with the URL
	eventually(t, 20*time.Second, "the edge has noticed", func() bool { return strings.Contains(read(t, s.Log), "nats") && !s.Ready() })
	logs := map[string]string{"edge": read(t, s.Log), "worker": read(t, worker)}
	for name, log := range logs {
		log += values(t, name, log)
		if len(log) < 200 {
			t.Errorf("%s says nothing: %q", name, log)
		}
		for _, secret := range append(parts(secrets), body, site.Secret) {
			if i := strings.Index(log, secret); i >= 0 {
				t.Errorf("the log of %s holds %q:\n%s", name, secret, log[max(i-200, 0):min(i+len(secret)+100, len(log))])
			}
		}
	}
	if !strings.Contains(logs["edge"], "evil.example") {
		t.Error("the log does not hold what it should: this test looks at nothing")
	}
}

// bury publishes events that a worker cannot read, with what people write in them, and waits
// until it has put them aside.
func bury(t *testing.T, s *site.Site, log string) {
	t.Helper()
	alice := userid.MustParse("alice")
	subj := subject.Up(subject.Lane(alice, stream.DefaultLanes), alice)
	nc := s.NATS.Conn(t)
	for _, h := range []nats.Header{{}, {"ce-type": {"im.frame"}, "ce-source": {body}}, {"ce-type": {body}, "ce-source": {"/edges/e/conns/c"}}} {
		if err := nc.PublishMsg(&nats.Msg{Subject: subj, Header: h, Data: []byte(army.Message(body))}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "two messages are dead, one is of an unknown type", func() bool { return strings.Count(read(t, log), "message is dead") >= 2 })
}

// values returns what the lines of a log say, without JSON's escapes. Each line must be an
// object with a time, a level and a message.
func values(t *testing.T, name, log string) string {
	t.Helper()
	var all strings.Builder
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%s logs a line that is no JSON object: %q", name, line)
			continue
		}
		for _, key := range []string{"time", "level", "msg"} {
			if s, ok := fields[key].(string); !ok || s == "" {
				t.Errorf("%s logs a line without %s: %q", name, key, line)
			}
		}
		fmt.Fprintln(&all, fields)
	}
	return all.String()
}

// first is a login.
func first(tok string) []byte {
	return army.Frame(ws.OpText, true, fmt.Sprintf(`{"msgType":2,"msgBody":{"token":%q}}`, tok))
}

// misuse shows a token to the edge in every way, right and wrong.
func misuse(t *testing.T, s *site.Site, tok string) {
	t.Helper()
	header := army.Request("Authorization: Bearer " + tok)
	path := func(target string) []byte { return bytes.Replace(header, []byte("GET /ws"), []byte("GET "+target), 1) }
	for _, request := range [][]byte{
		header,
		army.Request("Sec-WebSocket-Protocol: im.json.v1, im.token." + tok),
		path("/ws?token=" + tok),
		path("/elsewhere/" + tok),
		path("/ws/" + tok), // as a user id
		army.Request("Authorization: Bearer " + tok + "\r\nSec-WebSocket-Protocol: im.token.x" + tok),
		army.Request("Authorization: Bearer " + tok + "\r\nOrigin: http://evil.example"),
		army.Request("Cookie: token=" + tok + "\r\nBroken header " + tok),
	} {
		provoke(t, s, request)
	}
	for _, frame := range [][]byte{
		first(tok),
		army.Frame(ws.OpText, true, `{"msgType":2,"msgBody":{"token":"`+tok+`"`), // cut JSON
		army.Frame(ws.OpText, true, `{"msgType":3,"x":"`+tok+`"}`),
	} {
		provoke(t, s, army.Request(""), frame)
	}
}

// parts returns each token, and the parts of those that have some: what is encoded, and
// what is encoded in it.
func parts(tokens []string) []string {
	all := []string{}
	for _, tok := range tokens {
		all = append(all, tok)
		if part := strings.Split(tok, "."); len(part) == 3 {
			all = append(all, part[1], part[2]) // the header is the same for everybody
			if claims, err := base64.RawURLEncoding.DecodeString(part[1]); err == nil && json.Valid(claims) {
				all = append(all, string(claims))
			}
		}
	}
	return all
}

// provoke sends a request, and frames behind it, and awaits the end of what comes back.
func provoke(t *testing.T, s *site.Site, request []byte, then ...[]byte) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write(append(request, bytes.Join(then, nil)...))
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = conn.Read(make([]byte, 4096)) // an HTTP answer; what follows it is counted by the edge alone
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startWorker runs bin/worker until the test's end and returns the file of its output.
func startWorker(t *testing.T, s *site.Site, uri string) (log string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := ln.Addr().String()
	_ = ln.Close()
	log = filepath.Join(t.TempDir(), "worker.log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(filepath.Join(filepath.Dir(binary), "worker"))
	cmd.Env = []string{"WORKER_NAME=worker", "NATS_URL=" + s.NATS.URL(), "MONGODB_URI=" + uri, "ADMIN_LISTEN=" + admin, "LOG_LEVEL=debug", "LOG_FORMAT=json"}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, 30*time.Second, "the worker is ready", func() bool {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return log
}
