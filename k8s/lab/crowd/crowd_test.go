package crowd

import (
	"errors"
	"net"
	"testing"
)

// TestChoose: a connection goes to the ready edge with the fewest, and one that is closed,
// however often, counts once.
func TestChoose(t *testing.T) {
	edges := []string{"a", "b"}
	c, err := New(func() []string { return edges }, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func() string {
		edge, err := c.choose()
		if err != nil {
			t.Fatal(err)
		}
		return edge
	}
	if first, second, third := at(), at(), at(); first != "a" || second != "b" || third != "a" {
		t.Error(first, second, third)
	}
	near, far := net.Pipe()
	defer far.Close()
	conn := c.count(near, "a")
	if err := errors.Join(conn.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
	if closed := c.open["a"]; closed != 1 {
		t.Errorf("a has %d connections, want 1", closed)
	}
	edges = []string{"b"}
	if edge := at(); edge != "b" {
		t.Errorf("an edge that is not ready is chosen: %s", edge)
	}
	edges = nil
	if edge, err := c.choose(); err == nil {
		t.Errorf("%s is chosen of none", edge)
	}
}
