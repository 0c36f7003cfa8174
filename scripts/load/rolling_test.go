package main

import (
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/load/nginx"
)

// Edges are replaced one by one behind the nginx that is shipped, which is reloaded before:
// nobody loses anything. What breaks that is found out.
func TestRollingRestart(t *testing.T) {
	_, shipped := nginx.Need(t)
	bin := programs(t)
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		name, args string
		code       int
		text       string
	}{
		{"as shipped", "-n 600 -reload", 0, "nothing was lost"},
		{"clients that do not resume", "-n 400 -forgetful", exitLost, "came back without resuming"},
		{"edges that close all at once", "-n 400 -edge-env DRAIN_RATE=1000000", exitLost, "connections went in one second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := strings.Fields("-mode rolling -own-edges 2 -messages 300 -duration 2s -settle 0s -drain-rate 100 -drain-notice 200ms " + c.args)
			code, r, text := load(t, append(args, "-bin", bin, "-nginx", shipped)...)
			if code != c.code || !strings.Contains(text, c.text) {
				t.Fatalf("exit code %d:\n%s", code, text)
			}
			if code != 0 {
				return
			}
			if moved := count(r, "moved"); moved < 600 || moved != count(r, "resumed") || count(r, "dropped") != 0 {
				t.Errorf("counts %v", r["counts"])
			}
			if sent := count(r, "sent"); sent < 2000 || count(r, "acknowledged") != sent || count(r, "delivered") != sent {
				t.Errorf("counts %v", r["counts"])
			}
			edges, _ := r["rolling"].(map[string]any)["edges"].([]any)
			if len(edges) != 2 {
				t.Errorf("edges %v", edges)
			}
		})
	}
}
