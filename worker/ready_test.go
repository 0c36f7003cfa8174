package worker

import (
	"log/slog"
	"testing"

	"github.com/wirepost/wirepost/shared/admin"
)

// Before the start has ended no condition holds, and "started" is the one that tells why.
func TestStarted(t *testing.T) {
	w := New(Config{}, Deps{Log: slog.New(slog.DiscardHandler)})
	failing := map[string]error{}
	for _, c := range w.checks() {
		failing[c.Name] = c.Ready()
	}
	if len(failing) != 3 || failing["started"] == nil || failing["nats"] == nil || failing["store"] == nil {
		t.Errorf("before the start: %v", failing)
	}
	w.rooms.Store(&rooms{store: &probe{}})
	for _, c := range w.checks() {
		if c.Name == "started" || c.Name == "store" {
			ready(t, c)
		}
	}
}

func ready(t *testing.T, c admin.Check) {
	t.Helper()
	if err := c.Ready(); err != nil {
		t.Errorf("%s: %v", c.Name, err)
	}
}
