package nginx_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/nginx"
)

// free returns an address that nobody listens on: of a loopback address of its own, so
// that no outgoing connection gets the port.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 2+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// layer is an nginx that runs.
type layer struct {
	addr, dir string
	cmd       *exec.Cmd
	stderr    bytes.Buffer
}

func start(t *testing.T, conf string, a nginx.Addresses) *layer {
	t.Helper()
	program, shipped := nginx.Need(t)
	l := &layer{addr: free(t), dir: filepath.Join(t.TempDir(), "nginx")}
	a.Listen = l.addr
	if err := nginx.Render(shipped, l.dir, a); err != nil {
		t.Fatal(err)
	}
	l.cmd = exec.Command(program, nginx.Args(l.dir, conf)...)
	l.cmd.Stderr = &l.stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", l.addr); err == nil {
			_ = c.Close()
			return l
		}
		if time.Now().After(deadline) {
			l.stop()
			t.Fatalf("nginx does not start: %s", &l.stderr)
		}
	}
}

// stop ends the master and its workers, and returns when they have written their logs.
func (l *layer) stop() {
	if l.cmd.ProcessState == nil {
		_ = l.cmd.Process.Signal(syscall.SIGTERM)
		_ = l.cmd.Wait()
	}
}

// get asks from a source address and returns the answer.
func get(t *testing.T, from, url string, header ...string) (*http.Response, string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = "chat.example.com"
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// edge answers each request with what it was told about the client.
func edge(t *testing.T) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		fmt.Fprintf(w, "%s %s %s %s", strings.Join(h["X-Forwarded-For"], "+"), h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Host"), r.Host)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// leaving answers 503, as an edge that goes away.
func leaving(t *testing.T) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestNginxReadsTheShippedConfiguration(t *testing.T) {
	program, shipped := nginx.Need(t)
	dir := filepath.Join(t.TempDir(), "nginx")
	if err := nginx.Render(shipped, dir, nginx.Addresses{Listen: free(t)}); err != nil {
		t.Fatal(err)
	}
	for _, conf := range []string{nginx.Single, nginx.Outer, nginx.Inner} {
		if err := nginx.Check(program, dir, conf); err != nil {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

// What a client says about itself is not believed, neither by one layer nor by two, and
// the inner layer believes the outer one alone.
func TestForwardedHeaders(t *testing.T) {
	const client = "127.0.0.2"
	lie := []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example"}
	single := start(t, nginx.Single, nginx.Addresses{Edges: []string{edge(t)}})
	inner := start(t, nginx.Inner, nginx.Addresses{Edges: []string{edge(t)}, Outers: []string{"127.0.0.1"}})
	outer := start(t, nginx.Outer, nginx.Addresses{Inners: []string{inner.addr}})
	for name, l := range map[string]*layer{"one layer": single, "both layers": outer, "past the outer layer": inner} {
		const want = client + " http chat.example.com chat.example.com"
		if _, got := get(t, client, "http://"+l.addr+"/ws", lie...); got != want {
			t.Errorf("%s: the edge was told %q, want %q", name, got, want)
		}
	}
	// The outer layer, on 127.0.0.1, is believed.
	const want = "6.6.6.6 https evil.example chat.example.com"
	if _, got := get(t, "127.0.0.1", "http://"+inner.addr+"/ws", lie...); got != want {
		t.Errorf("from the outer layer: the edge was told %q, want %q", got, want)
	}
}

// A handshake finds the one edge that takes it.
func TestEdgesThatAreGoneOrGoAway(t *testing.T) {
	l := start(t, nginx.Single, nginx.Addresses{Edges: []string{free(t), leaving(t), edge(t)}})
	for range 20 {
		if res, _ := get(t, "127.0.0.1", "http://"+l.addr+"/ws"); res.StatusCode != http.StatusOK {
			t.Fatalf("answer %s", res.Status)
		}
	}
}

// When there is none, the client is told to come back later.
func TestNoEdge(t *testing.T) {
	l := start(t, nginx.Single, nginx.Addresses{Edges: []string{free(t), free(t)}})
	res, _ := get(t, "127.0.0.1", "http://"+l.addr+"/ws")
	if after := res.Header.Get("Retry-After"); res.StatusCode != http.StatusServiceUnavailable || len(after) != 1 || after < "1" || after > "4" {
		t.Errorf("answer %s, Retry-After %q", res.Status, after)
	}
}

// A token is in no log, wherever a client puts it, also when the handshake fails.
func TestNoTokenInLogs(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiJ9"
	inner := start(t, nginx.Inner, nginx.Addresses{Edges: []string{free(t), edge(t)}})
	dead := start(t, nginx.Single, nginx.Addresses{Edges: []string{free(t)}})
	all := []*layer{start(t, nginx.Single, nginx.Addresses{Edges: []string{free(t), edge(t)}}), dead, inner,
		start(t, nginx.Outer, nginx.Addresses{Inners: []string{free(t), inner.addr}})}
	for _, l := range all {
		for _, path := range []string{"/ws/ann", "/elsewhere"} {
			get(t, "127.0.0.1", "http://"+l.addr+path+"?token="+token, "Authorization", "Bearer "+token,
				"Sec-WebSocket-Protocol", "im.token."+token, "Referer", "http://a/?t="+token, "Cookie", "t="+token, "User-Agent", token)
		}
	}
	for _, l := range all {
		l.stop()
		logged := l.stderr.String()
		err := fs.WalkDir(os.DirFS(l.dir), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".log" {
				return err
			}
			b, err := os.ReadFile(filepath.Join(l.dir, path))
			logged += string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(logged, token) || !strings.Contains(logged, `"path":"/ws/ann"`) {
			t.Errorf("the logs: %s", logged)
		}
	}
}
