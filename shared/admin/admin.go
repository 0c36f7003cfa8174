// Package admin is the HTTP server of a binary's admin port: liveness, readiness,
// metrics, version and profiles. It belongs on an address that only operators reach.
//
// It never carries user traffic, and it knows what is ready only from the checks that
// it is given.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wirepost/wirepost/shared/process"
)

const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10

	// writeTimeout is for those who do not read their answer. It is also the longest profile:
	// while one is taken the process is slower. net/http/pprof itself sets no bound.
	writeTimeout = time.Minute
)

// Check is one named condition of readiness.
type Check struct {
	Name string // a word or two, such as "nats"
	// Ready returns nil, or what is missing. Called concurrently, at every probe: it
	// must not block.
	Ready func() error
}

// Options are what a Server is made of.
type Options struct {
	Registry *prometheus.Registry // of /metrics; the server adds the checks to it
	Checks   []Check              // of /readyz; all must hold
	Log      *slog.Logger
}

// Server serves the admin port:
//
//	/healthz       200 while the process answers; it never depends on NATS or a store
//	/readyz        200 "ready", or 503 and one line "<check>: <what is missing>" each
//	/metrics       Prometheus
//	/version       version, commit and Go version as JSON
//	/debug/pprof/  profiles, of a minute at most
type Server struct {
	checks []Check
	log    *slog.Logger
	http   *http.Server
}

// NewRegistry returns a registry with the collectors of the Go runtime and the process,
// and the build's version.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	b := process.Build()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "wirepost_build_info",
		Help:        "Always 1; the labels say what this binary was built from.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go": b.Go},
	})
	info.Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return reg
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	s := &Server{checks: o.Checks, log: o.Log}
	for _, c := range o.Checks {
		o.Registry.MustRegister(c.metric())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /version", version)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}))
	mux.HandleFunc("/debug/pprof/", short(pprof.Index))
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", short(pprof.Profile))
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", short(pprof.Trace))
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve serves ln, which it closes, until Stop; it then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin port: %w", err)
	}
	return nil
}

// Stop ends Serve, waits for requests in flight until ctx ends, and then cuts them.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	return errors.Join(err, s.http.Close())
}

// metric is the check as Prometheus sees it.
func (c Check) metric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wirepost_ready", Help: "1 while a condition of /readyz holds, else 0, by check.",
		ConstLabels: prometheus.Labels{"check": c.Name},
	}, func() float64 {
		if c.Ready() != nil {
			return 0
		}
		return 1
	})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var missing strings.Builder
	for _, c := range s.checks {
		if err := c.Ready(); err != nil {
			fmt.Fprintf(&missing, "%s: %s\n", c.Name, err)
		}
	}
	if missing.Len() > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, missing.String())
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// short refuses a profile that is to take longer than writeTimeout.
func short(profile http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sec, err := strconv.ParseFloat(r.FormValue("seconds"), 64)
		if fits := sec <= writeTimeout.Seconds(); err == nil && !fits { // NaN does not fit either
			http.Error(w, fmt.Sprintf("a profile takes at most %v seconds", writeTimeout.Seconds()), http.StatusBadRequest)
			return
		}
		profile(w, r)
	}
}

func version(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(process.Build())
}

func index(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "/healthz\n/readyz\n/metrics\n/version\n/debug/pprof/\n")
}
