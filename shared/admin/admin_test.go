package admin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/shared/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, checks ...admin.Check) (get func(path string) (int, string)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := admin.New(admin.Options{Registry: admin.NewRegistry(), Checks: checks, Log: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return func(path string) (int, string) {
		t.Helper()
		resp, err := client.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestPages(t *testing.T) {
	get := start(t)
	for path, want := range map[string]string{
		"/":                      "/readyz",
		"/healthz":               "ok\n",
		"/readyz":                "ready\n",
		"/version":               `"version":"dev"`,
		"/metrics":               "go_goroutines",
		"/debug/pprof/":          "heap",
		"/debug/pprof/heap":      "",
		"/debug/pprof/cmdline":   "admin",
		"/debug/pprof/goroutine": "",
	} {
		code, body := get(path)
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.80q, want %q", path, code, body, want)
		}
	}
	if _, body := get("/metrics"); !strings.Contains(body, "wirepost_build_info{") || !strings.Contains(body, "process_open_fds") {
		t.Error("/metrics has no build info or no process collector")
	}
	if code, _ := get("/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
}

// A profile takes a minute at most: a trace of a day would slow the process for a day.
func TestProfilesAreShort(t *testing.T) {
	get := start(t)
	for _, path := range []string{"trace?seconds=60.5", "trace?seconds=86400", "trace?seconds=NaN", "trace?seconds=Inf", "profile?seconds=61", "heap?seconds=3600"} {
		if code, body := get("/debug/pprof/" + path); code != http.StatusBadRequest || !strings.Contains(body, "at most 60 seconds") {
			t.Errorf("%s: %d %.80q", path, code, body)
		}
	}
	for _, path := range []string{"trace?seconds=0.01", "heap?seconds=1", "profile?seconds=1"} {
		if code, body := get("/debug/pprof/" + path); code != http.StatusOK || body == "" {
			t.Errorf("%s: %d, %d bytes", path, code, len(body))
		}
	}
}

func TestReadiness(t *testing.T) {
	var nats, drain atomic.Bool
	check := func(b *atomic.Bool, missing string) func() error {
		return func() error {
			if b.Load() {
				return nil
			}
			return errors.New(missing)
		}
	}
	get := start(t, admin.Check{Name: "nats", Ready: check(&nats, "not connected")}, admin.Check{Name: "drain", Ready: check(&drain, "draining")})
	expect := func(code int, body string) {
		t.Helper()
		if c, b := get("/readyz"); c != code || b != body {
			t.Errorf("/readyz: %d %q, want %d %q", c, b, code, body)
		}
		if c, _ := get("/healthz"); c != http.StatusOK {
			t.Errorf("/healthz: %d: liveness must not depend on readiness", c)
		}
	}
	expect(http.StatusServiceUnavailable, "nats: not connected\ndrain: draining\n")
	nats.Store(true)
	expect(http.StatusServiceUnavailable, "drain: draining\n")
	drain.Store(true)
	expect(http.StatusOK, "ready\n")
}

func TestStopCuts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	s := admin.New(admin.Options{Registry: admin.NewRegistry(), Log: slog.New(slog.DiscardHandler), Checks: []admin.Check{{
		Name: "hangs", Ready: func() error { close(entered); <-release; return nil },
	}}})
	served, asked := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		resp, err := client.Get("http://" + ln.Addr().String() + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		asked <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	if err := <-asked; err == nil {
		t.Error("the request was not cut")
	}
	close(release)
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// What /readyz tells, Prometheus is told as well, check by check.
func TestReadyMetric(t *testing.T) {
	var away atomic.Bool
	get := start(t, admin.Check{Name: "nats", Ready: func() error {
		if away.Load() {
			return errors.New("not connected")
		}
		return nil
	}}, admin.Check{Name: "store", Ready: func() error { return nil }})
	for _, gone := range []bool{false, true, false} {
		away.Store(gone)
		_, page := get("/metrics")
		want := map[bool]string{false: "\nwirepost_ready{check=\"nats\"} 1\n", true: "\nwirepost_ready{check=\"nats\"} 0\n"}[gone]
		if !strings.Contains(page, want) || !strings.Contains(page, "\nwirepost_ready{check=\"store\"} 1\n") {
			t.Errorf("while NATS is away: %v, the page lacks %q", gone, want)
		}
	}
}
