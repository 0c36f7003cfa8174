package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
)

// TestMain lets the test binary be the command itself, so that tests can kill it.
func TestMain(m *testing.M) {
	if args := os.Getenv("WIREPOST_DEV_TEST_ARGS"); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
		return
	}
	os.Exit(m.Run())
}

// patience bounds every wait of a test. Nothing waits for as long when all is well.
const patience = 60 * time.Second

// testLog shows the log of a test that failed.
func testLog(t testing.TB) *slog.Logger {
	var mu sync.Mutex
	var buf bytes.Buffer
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() {
			t.Logf("log of the system:\n%s", buf.String())
		}
	})
	return slog.New(slog.NewTextHandler(lockedWriter{&mu, &buf}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// startSystem runs a system of the test's own and returns it when it is ready.
func startSystem(t testing.TB, o options) *system {
	t.Helper()
	if o.data == "" {
		o.data = t.TempDir()
	}
	o.tests.backAfter = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	s, err := newSystem(ctx, o, testLog(t))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	ready, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := s.awaitReady(ready); err != nil {
		t.Fatalf("not ready: %v", err)
	}
	return s
}

// talker connects a user and gives every event to the test.
func talker(t *testing.T, user, url string, token func(context.Context) (string, error)) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URLs: []string{url}, Token: token, MaxBackoff: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// drain reads a client's events, so that it goes on; nobody looks at them.
func drain(c *client.Client) {
	go func() {
		for range c.Events() {
		}
	}()
}

func (s *system) tokenOf(user string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return devkeys.Token(s.secret, user, time.Hour) }
}

func send(t *testing.T, c *client.Client, to, text string) *client.Pending {
	t.Helper()
	p, err := c.Send(t.Context(), to, map[string]string{"text": text})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func history(t *testing.T, c *client.Client, peer string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	after := int64(0)
	page, err := c.History(ctx, peer, protocol.HistoryRequest{AfterSeq: &after, Limit: protocol.MaxPage})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, m := range page.Messages {
		var body struct{ Text string }
		if err := json.Unmarshal(m.MsgBody, &body); err != nil || m.Seq != int64(i+1) {
			t.Fatalf("message %d of history: seq %d, body %s, %v", i, m.Seq, m.MsgBody, err)
		}
		texts = append(texts, body.Text)
	}
	return texts
}

// TestKillAndStartAgain: whatever way the process ends, what was acknowledged is there.
func TestKillAndStartAgain(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 6)
	var want []string
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, 0} {
		cmd := startCommand(t, dir, ports)
		secret, err := devkeys.Secret(dir)
		if err != nil {
			t.Fatal(err)
		}
		token := func(context.Context) (string, error) { return devkeys.Token(secret, "alice", time.Hour) }
		c := talker(t, "alice", fmt.Sprintf("ws://127.0.0.1:%d/ws", ports[1]), token)
		drain(c)
		if got := history(t, c, "bob"); strings.Join(got, ",") != strings.Join(want, ",") {
			t.Fatalf("history %q, want %q", got, want)
		}
		if sig == 0 {
			cmd.stop(t, syscall.SIGINT)
			return
		}
		for i := range 5 {
			text := fmt.Sprintf("%d before %v", i, sig)
			p := send(t, c, "bob", text)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if _, err := p.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			want = append(want, text)
		}
		cmd.stop(t, sig)
	}
}

// command is the dev command as a process of its own.
type command struct {
	cmd *exec.Cmd
	out *firstLines
}

func startCommand(t *testing.T, dir string, ports []int) *command {
	t.Helper()
	args := []string{"-data", dir}
	for i, flag := range []string{"-port", "-edge1", "-edge2", "-admin1", "-admin2", "-admin3"} {
		args = append(args, flag, fmt.Sprint(ports[i]))
	}
	c := &command{cmd: exec.Command(os.Args[0]), out: newFirstLines("demo page")}
	c.cmd.Env = []string{"WIREPOST_DEV_TEST_ARGS=" + strings.Join(args, "\n"), "HOME=" + t.TempDir()}
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	select {
	case <-c.out.seen:
	case <-time.After(patience):
		t.Fatalf("not ready: %s", c.out)
	}
	return c
}

func (c *command) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil && sig != syscall.SIGKILL {
		t.Errorf("after %v: %v\n%s", sig, err, c.out)
	}
}

// firstLines keeps what is written to it, and closes seen when it holds a word.
type firstLines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	word string
	seen chan struct{}
}

func newFirstLines(word string) *firstLines {
	return &firstLines{word: word, seen: make(chan struct{})}
}

func (f *firstLines) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := strings.Contains(f.buf.String(), f.word)
	f.buf.Write(b)
	if !before && strings.Contains(f.buf.String(), f.word) {
		close(f.seen)
	}
	return len(b), nil
}

func (f *firstLines) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.buf.String()
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := listenOn(0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, portOf(l))
	}
	return ports
}

func TestTakenPortAndFolderAreSaidClearly(t *testing.T) {
	l, err := listenOn(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = newSystem(t.Context(), options{data: dir, edges: [2]int{0, portOf(l)}}, testLog(t))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d of the second edge is taken", portOf(l))) || !strings.Contains(err.Error(), "-edge2") {
		t.Errorf("taken port: %v", err)
	}
	s, err := newSystem(t.Context(), options{data: dir}, testLog(t)) // the failure left nothing behind
	if err != nil {
		t.Fatal(err)
	}
	_, again := newSystem(t.Context(), options{data: dir}, testLog(t))
	if again == nil || !strings.Contains(again.Error(), "is in use by another make run") {
		t.Errorf("taken folder: %v", again)
	}
	if err := s.stops.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeftBehind: crashes, pauses and the end leave no goroutine.
func TestNothingIsLeftBehind(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := newSystem(ctx, options{data: t.TempDir(), tests: tuning{backAfter: 10 * time.Millisecond}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	for range 2 {
		if err := s.awaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.edges[0].crash(); err != nil {
			t.Error(err)
		}
		if err := s.edges[0].crash(); !errors.Is(err, errGone) {
			t.Errorf("second crash: %v", err)
		}
		s.worker.pause(true)
		s.worker.pause(false)
		for !s.edges[0].up() { // its next life begins after a pause of milliseconds
			runtime.Gosched()
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t)
}

func TestBannerCanBePasted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's data")
	s := startSystem(t, options{data: dir})
	text := s.banner()
	for _, want := range []string{
		`demo page +http://127\.0\.0\.1:\d+\n`,
		`go run \./scripts/chat -user carol -to alice -url ws://127\.0\.0\.1:\d+/ws -data '.*/it'\\''s data'\n`,
		`edge-1 http://127\.0\.0\.1:\d+ +edge-2 http://127\.0\.0\.1:\d+ +worker http://127\.0\.0\.1:\d+\n`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s in:%s", want, text)
		}
	}
	for _, url := range regexp.MustCompile(`http://\S+`).FindAllString(text, -1) {
		res, err := http.Get(url)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", url, res.Status)
		}
	}
}

func TestOnlyThisMachinesPageMayAsk(t *testing.T) {
	s := startSystem(t, options{})
	_, port, _ := net.SplitHostPort(s.page.l.Addr().String())
	for _, c := range []struct {
		name, method, path, host, origin string
		want                             int
	}{
		{"the page", "GET", "/", "127.0.0.1:" + port, "", 200},
		{"by name", "GET", "/", "localhost:" + port, "", 200},
		{"another name for this machine", "GET", "/dev/status", "evil.example:" + port, "", 421},
		{"a token for its own page", "POST", "/dev/token", "127.0.0.1:" + port, "http://127.0.0.1:" + port, 200},
		{"a token for a foreign page", "POST", "/dev/token", "127.0.0.1:" + port, "http://evil.example", 403},
		{"a token for a page on another port", "POST", "/dev/token", "127.0.0.1:" + port, "http://127.0.0.1:1", 403},
		{"a token without an origin", "POST", "/dev/token", "127.0.0.1:" + port, "", 403},
		{"an attack by a foreign page", "POST", "/dev/edges/1/crash", "127.0.0.1:" + port, "null", 403},
		{"an edge that is none", "POST", "/dev/edges/3/crash", "127.0.0.1:" + port, "http://127.0.0.1:" + port, 404},
		{"the page's Go file", "GET", "/page.go", "127.0.0.1:" + port, "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.page.url()+c.path, strings.NewReader(`{"user":"alice"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, res.Status, c.want)
		}
		if csp := res.Header.Get("Content-Security-Policy"); c.want == 200 && !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", c.name, csp)
		}
	}
}

// TestWayOfAMessage: every station is seen, in order, without code in edge or worker.
func TestWayOfAMessage(t *testing.T) {
	s := startSystem(t, options{})
	bob := talker(t, "bob", s.edges[1].url(), s.tokenOf("bob"))
	alice := talker(t, "alice", s.edges[0].url(), s.tokenOf("alice"))
	drain(alice)
	for ready := false; !ready; { // bob is online before anything is sent
		_, ready = (<-bob.Events()).(client.Synced)
	}
	p := send(t, alice, "bob", "hello")
	for ev := range bob.Events() {
		if m, ok := ev.(client.Message); ok && m.ClientMsgID == p.ClientMsgID {
			break
		}
	}
	drain(bob)
	req := s.page.url() + "/dev/trace?user=alice&cid=" + p.ClientMsgID
	var w way
	deadline := time.Now().Add(patience)
	for w.StoreAt == 0 || w.JetStreamAt == 0 || len(w.Downs) < 2 { // the tracer hears of it when the recipients do, or a moment later
		if time.Now().After(deadline) {
			t.Fatalf("way %+v", w)
		}
		res, err := http.Get(req)
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(&w)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if !w.Found || w.Attempts != 1 || !strings.HasPrefix(w.Edge, "edge-1-") || !strings.HasPrefix(w.Stream, "UP_") || w.StreamSeq == 0 {
		t.Errorf("way %+v", w)
	}
	at := []float64{w.EdgeAt, w.PublishedAt, w.FetchedAt, w.StoreAt, w.Downs[0].At, w.Downs[0].SeenAt}
	for i := 1; i < len(at); i++ {
		if at[i-1] == 0 || at[i] < at[i-1] {
			t.Errorf("station %d is at %f, the one before at %f: %+v", i, at[i], at[i-1], w)
		}
	}
}
