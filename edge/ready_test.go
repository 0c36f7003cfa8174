package edge

import "testing"

// Before the start has ended no condition holds, and "started" is the one that tells why.
func TestStarted(t *testing.T) {
	e := New(Config{}, Deps{})
	failing := map[string]error{}
	for _, c := range e.checks() {
		failing[c.Name] = c.Ready()
	}
	for _, name := range []string{"started", "sockets", "tokens", "uplink", "downlink"} {
		if failing[name] == nil {
			t.Errorf("%s holds before the start", name)
		}
	}
	e.rooms.Store(&rooms{})
	for _, c := range e.checks() {
		if c.Name != "started" && c.Name != "sockets" {
			continue // of rooms that are not here
		}
		if err := c.Ready(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}
