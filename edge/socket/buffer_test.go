package socket

import "testing"

// Who holds much cannot keep those away who need little: when no large piece is given any
// more, small ones still are.
func TestBudgetIsShared(t *testing.T) {
	p := &buffers{budget: 1 << 20}
	greedy := 0
	for p.take(64<<10) != nil {
		if greedy++; greedy > 16 {
			t.Fatal("more was lent than there is")
		}
	}
	if greedy < 8 {
		t.Errorf("%d pieces of 64 KiB of a budget of 1 MiB", greedy)
	}
	for i := range 100 {
		if p.take(1000) == nil {
			t.Fatalf("only %d small pieces behind %d large ones", i, greedy)
		}
	}
}
