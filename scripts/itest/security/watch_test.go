package security_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const watchLines = 150 // of the log, that a failing test shows

// watch is the log of all nodes. It keeps what each role published and subscribed, and
// whatever a server calls an error: a refused publish, subscription, sign-in or handshake.
type watch struct {
	mu     sync.Mutex
	used   map[string]map[string]bool // role → "publish <subject>" or "subscribe <subject>"
	errors []string
	lines  []string
}

// operation is the trace of what a client does; its name says which role it is.
var operation = regexp.MustCompile(`cid:\d+ - "v[^:"]*:[^:"]*:([^"]*)".* - <<- \[(PUB|HPUB|SUB) (\S+)`)

// The methods of nats-server's Logger.

func (w *watch) Noticef(format string, v ...any) { w.add("note ", format, v) }
func (w *watch) Warnf(format string, v ...any)   { w.add("warn ", format, v) }
func (w *watch) Fatalf(format string, v ...any)  { w.add("fatal", format, v) }
func (w *watch) Debugf(string, ...any)           {}

func (w *watch) Errorf(format string, v ...any) {
	w.add("error", format, v)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errors = append(w.errors, fmt.Sprintf(format, v...))
}

func (w *watch) Tracef(format string, v ...any) {
	m := operation.FindStringSubmatch(fmt.Sprintf(format, v...))
	if m == nil {
		return
	}
	what := "publish "
	if m[2] == "SUB" {
		what = "subscribe "
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	role := roleOf(m[1])
	if w.used[role] == nil {
		w.used[role] = map[string]bool{}
	}
	w.used[role][what+m[3]] = true
}

// roleOf a connection of that name: edges of the tests are called edge-…, workers worker-….
func roleOf(name string) string {
	switch {
	case strings.HasPrefix(name, "edge-") && strings.Contains(name, " replay-"):
		return "replay"
	case strings.HasPrefix(name, "edge-"):
		return "edge"
	case strings.HasPrefix(name, "worker-"):
		return "worker"
	}
	return name
}

func (w *watch) add(level, format string, v []any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) == watchLines {
		w.lines = slices.Delete(w.lines, 0, 1)
	}
	w.lines = append(w.lines, level+" "+fmt.Sprintf(format, v...))
}

func (w *watch) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return "logs of the nats-servers:\n" + strings.Join(w.lines, "\n")
}

// refusals are the errors so far.
func (w *watch) refusals() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.errors)
}

// usedBy is what a role has done so far, in order.
func (w *watch) usedBy(role string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.used[role]))
}
