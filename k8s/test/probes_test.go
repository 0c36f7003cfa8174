package manifests

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wirepost/wirepost/shared/admin"
)

// checkProbes asks a real admin port, of which nothing is ready, by the paths of the
// probes: liveness must say yes, readiness no.
func checkProbes(t *testing.T, o *overlay) (p problems) {
	ask := adminPort(t)
	for _, name := range []string{"edge", "worker"} {
		w, _ := o.workload(name)
		live, ready := w.container().LivenessProbe, w.container().ReadinessProbe
		if live == nil || live.HTTPGet == nil || ready == nil || ready.HTTPGet == nil {
			p.add("%s lacks a probe", name)
			continue
		}
		if code := ask(live.HTTPGet.Path); code != http.StatusOK {
			p.add("%s: liveness %s is %d while neighbours are away", name, live.HTTPGet.Path, code)
		}
		if code := ask(ready.HTTPGet.Path); code != http.StatusServiceUnavailable {
			p.add("%s: readiness %s is %d while neighbours are away", name, ready.HTTPGet.Path, code)
		}
		for _, probe := range []*corev1.Probe{live, ready} {
			if probe.HTTPGet.Port.String() != "admin" {
				p.add("%s: a probe asks the port %s", name, probe.HTTPGet.Port.String())
			}
		}
	}
	for _, w := range o.pods {
		if c := w.container(); c.LivenessProbe == nil || (c.ReadinessProbe == nil && c.StartupProbe == nil) {
			p.add("%s lacks a probe", w.GetName())
		}
	}
	return p
}

// adminPort serves an admin port on which nothing is ready, until the test ends.
func adminPort(t *testing.T) (ask func(path string) int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := admin.New(admin.Options{Registry: admin.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Checks: []admin.Check{{Name: "nats", Ready: func() error { return errors.New("away") }}}})
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return func(path string) int {
		r, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		return r.StatusCode
	}
}
