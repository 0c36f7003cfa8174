package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/wirepost/wirepost/scripts/dev/page"
	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// tokenTTL is long enough for a demo, and short enough to see a refresh on a long day.
	tokenTTL = time.Hour
	// webStop bounds the end of requests.
	webStop = 2 * time.Second
	// maxRequest is the largest request body, in bytes.
	maxRequest = 4 << 10
)

// policy lets the page load itself and talk to this machine, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self' ws://127.0.0.1:*; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// web serves the demo page and what it asks of the development process:
//
//	GET  /                       the page
//	GET  /dev/status             who is up
//	POST /dev/token              {"user"} → {"token"}: a token for anybody
//	POST /dev/edges/{n}/crash    cuts an edge off; it comes back by itself
//	POST /dev/worker/pause       stops the worker, /resume starts it again
//	GET  /dev/trace?user=&cid=   the way of a message
//
// A token for anybody is for people in front of this machine alone: the port is on
// loopback, a request must name it so (a foreign name could be made to point here), and
// one that changes something must come from a page of this very origin.
type web struct {
	s    *system
	l    net.Listener
	http *http.Server
}

func newWeb(s *system, l net.Listener) *web {
	w := &web{s: s, l: l}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page.FS))
	mux.HandleFunc("GET /page.go", http.NotFound)
	mux.HandleFunc("GET /dev/status", w.status)
	mux.HandleFunc("POST /dev/token", w.token)
	mux.HandleFunc("POST /dev/edges/{n}/crash", w.crash)
	mux.HandleFunc("POST /dev/worker/pause", func(rw http.ResponseWriter, _ *http.Request) { w.pause(rw, true) })
	mux.HandleFunc("POST /dev/worker/resume", func(rw http.ResponseWriter, _ *http.Request) { w.pause(rw, false) })
	mux.HandleFunc("GET /dev/trace", w.trace)
	w.http = &http.Server{Handler: w.guard(mux), ReadHeaderTimeout: 5 * time.Second}
	return w
}

func (w *web) url() string { return fmt.Sprintf("http://127.0.0.1:%d", portOf(w.l)) }

// run serves until ctx ends.
func (w *web) run(ctx context.Context) error {
	failed := make(chan error, 1) // written by the server
	go func() { failed <- w.http.Serve(w.l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("demo page: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), webStop)
	defer cancel()
	if err := w.http.Shutdown(stop); err != nil {
		_ = w.http.Close() // a browser holds a connection: it hears of it
	}
	return nil
}

// guard refuses what does not come from this machine's own page.
func (w *web) guard(next http.Handler) http.Handler {
	port := strconv.Itoa(portOf(w.l))
	own := map[string]bool{"127.0.0.1:" + port: true, "localhost:" + port: true}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !own[r.Host] {
			http.Error(rw, "this server answers to 127.0.0.1 and localhost only", http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Origin") != "http://"+r.Host {
			http.Error(rw, "only the page of this server may ask for that", http.StatusForbidden)
			return
		}
		h := rw.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(rw, r.Body, maxRequest)
		next.ServeHTTP(rw, r)
	})
}

func (w *web) status(rw http.ResponseWriter, _ *http.Request) {
	type edge struct {
		N     int    `json:"n"`
		Name  string `json:"name"`
		URL   string `json:"url"`
		Admin string `json:"admin"`
		Up    bool   `json:"up"`
	}
	edges := []edge{}
	for _, e := range w.s.edges {
		edges = append(edges, edge{e.n, e.name, e.url(), e.adminURL(), e.up()})
	}
	paused, _ := w.s.worker.state()
	reply(rw, map[string]any{"system": w.s.id, "edges": edges,
		"worker": map[string]any{"paused": paused, "admin": w.s.worker.adminURL()}})
}

func (w *web) token(rw http.ResponseWriter, r *http.Request) {
	var ask struct {
		User string `json:"user"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		http.Error(rw, "not JSON", http.StatusBadRequest)
		return
	}
	if _, err := userid.Parse(ask.User); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	token, err := devkeys.Token(w.s.secret, ask.User, tokenTTL)
	if err != nil {
		http.Error(rw, "no token could be signed", http.StatusInternalServerError)
		return
	}
	reply(rw, map[string]string{"token": token})
}

func (w *web) crash(rw http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 1 || n > len(w.s.edges) {
		http.NotFound(rw, r)
		return
	}
	if err := w.s.edges[n-1].crash(); errors.Is(err, errGone) {
		http.Error(rw, err.Error(), http.StatusConflict)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

func (w *web) pause(rw http.ResponseWriter, paused bool) {
	w.s.worker.pause(paused)
	rw.WriteHeader(http.StatusNoContent)
}

func (w *web) trace(rw http.ResponseWriter, r *http.Request) {
	from, err := userid.Parse(r.FormValue("user"))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	reply(rw, w.s.watch.get(from, r.FormValue("cid")))
}

func reply(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(v) // the browser is gone: it asks again
}
