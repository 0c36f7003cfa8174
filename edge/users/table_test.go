package users_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/userid"
)

type table = users.Table[int, int]

func id(i int) userid.ID { return userid.MustParse("u" + strconv.Itoa(i)) }

// The table does what a map does, through growth, shrinking and reused positions.
func TestTableIsAMap(t *testing.T) {
	var tab table
	want := map[int]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for step := range 60_000 {
		k := rnd.IntN(3000)
		if step > 30_000 {
			k = rnd.IntN(300) // most of the table empties again
		}
		u := tab.Get(id(k))
		if found := tab.Find([]byte(id(k).Token())); found != u {
			t.Fatalf("step %d: Find(%d) = %v, Get says %v", step, k, found, u)
		}
		if _, there := want[k]; there != (u != nil) {
			t.Fatalf("step %d: Get(%d) = %v, want there %v", step, k, u, there)
		}
		switch {
		case u == nil:
			tab.Add(id(k)).X = step
			want[k] = step
		case u.X != want[k] || u.ID != id(k):
			t.Fatalf("step %d: user %d holds %d of %s, want %d", step, k, u.X, u.ID, want[k])
		case rnd.IntN(2) == 0:
			tab.Remove(u)
			delete(want, k)
		}
		if tab.Len() != len(want) {
			t.Fatalf("step %d: Len %d, want %d", step, tab.Len(), len(want))
		}
	}
	for i := range tab.Len() {
		u := tab.At(i)
		if tab.Get(u.ID) != u {
			t.Fatalf("At(%d) is not Get(%s)", i, u.ID)
		}
	}
}

// A walk downwards sees everybody who stays, whatever comes and goes meanwhile.
func TestWalkDownMissesNobody(t *testing.T) {
	var tab table
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 1000 {
		tab.Add(id(i))
	}
	gone, seen := map[string]bool{}, map[string]bool{}
	next := 1000
	for at := tab.Len() - 1; at >= 0; at-- {
		if at < tab.Len() {
			seen[tab.At(at).ID.Token()] = true
		}
		if u := tab.At(rnd.IntN(tab.Len())); rnd.IntN(2) == 0 {
			gone[u.ID.Token()] = true
			tab.Remove(u)
		}
		if rnd.IntN(3) == 0 {
			tab.Add(id(next))
			next++
		}
	}
	for i := range 1000 {
		if name := id(i).Token(); !seen[name] && !gone[name] {
			t.Errorf("the walk missed %s", name)
		}
	}
}

func TestReceivers(t *testing.T) {
	var tab table
	u := tab.Add(id(1))
	for r := range users.MaxReceivers {
		if !u.Join(users.Slot[int]{Receiver: r, Last: uint64(r)}) {
			t.Fatalf("receiver %d was refused", r)
		}
	}
	if u.Join(users.Slot[int]{Receiver: 99}) {
		t.Error("one receiver too many was taken")
	}
	for r := range users.MaxReceivers {
		if s := u.Find(r); s == nil || s.Last != uint64(r) {
			t.Fatalf("Find(%d) = %+v", r, s)
		}
		if s, ok := u.Leave(r); !ok || s.Receiver != r {
			t.Fatalf("Leave(%d) = %+v, %v", r, s, ok)
		}
		if _, ok := u.Leave(r); ok || u.Len() != users.MaxReceivers-1-r {
			t.Fatalf("after Leave(%d): Len %d", r, u.Len())
		}
	}
}

func BenchmarkGet(b *testing.B) {
	var tab table
	ids := make([]userid.ID, 1<<16)
	for i := range ids {
		ids[i] = id(i)
		tab.Add(ids[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if tab.Get(ids[i&(1<<16-1)]) == nil {
			b.Fatal("lost")
		}
	}
}
