package process

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// -ready asks the process that runs, and runs nothing.
func TestReady(t *testing.T) {
	answer := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("it asks for %s", r.URL.Path)
		}
		w.WriteHeader(answer)
		_, _ = w.Write([]byte("nats: away\n"))
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(addr string) (code int, errs string) {
		p := program(nil, func(context.Context) error { t.Error("it ran"); return nil })
		p.Admin = func(int) string { return addr }
		var out, stderr bytes.Buffer
		return p.main([]string{"-ready"}, &out, &stderr, nil, nil), stderr.String()
	}
	for _, addr := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port} {
		if code, errs := ask(addr); code != ExitOK || errs != "" {
			t.Errorf("%s, ready: code %d, %q", addr, code, errs)
		}
	}
	answer = http.StatusServiceUnavailable
	if code, errs := ask(":" + port); code != ExitFailed || !strings.Contains(errs, "prog: not ready: nats: away") {
		t.Errorf("not ready: code %d, %q", code, errs)
	}
	s.Close()
	if code, errs := ask(":" + port); code != ExitFailed || !strings.Contains(errs, "not ready") {
		t.Errorf("nobody there: code %d, %q", code, errs)
	}
}
