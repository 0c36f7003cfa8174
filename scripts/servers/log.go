package servers

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// maxLogLines is how many of a server's last log lines a failing test shows.
const maxLogLines = 200

// quietLog keeps a nats-server's last log lines until somebody wants them.
type quietLog struct {
	name string

	mu    sync.Mutex
	lines []string
}

// testLog returns a log that is shown when the test fails, and only then.
func testLog(t testing.TB, name string) *quietLog {
	l := &quietLog{name: name}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return l
}

func (l *quietLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return "log of " + l.name + ":\n" + strings.Join(l.lines, "\n")
}

func (l *quietLog) add(level, format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == maxLogLines {
		l.lines = append(l.lines[:0], l.lines[1:]...)
	}
	l.lines = append(l.lines, level+" "+fmt.Sprintf(format, v...))
}

// The methods of nats-server's Logger.

func (l *quietLog) Noticef(format string, v ...any) { l.add("note ", format, v) }
func (l *quietLog) Warnf(format string, v ...any)   { l.add("warn ", format, v) }
func (l *quietLog) Errorf(format string, v ...any)  { l.add("error", format, v) }
func (l *quietLog) Fatalf(format string, v ...any)  { l.add("fatal", format, v) }
func (l *quietLog) Debugf(format string, v ...any)  { l.add("debug", format, v) }
func (l *quietLog) Tracef(format string, v ...any)  { l.add("trace", format, v) }
