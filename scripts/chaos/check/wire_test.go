package check

import (
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// z came to ann at 62 s and w, which stands before it, did not. The run ends at 125 s.
func TestHowLongAMessageMayBeMissingOnTheWire(t *testing.T) {
	conn := func(k history.Kind, name string, at time.Duration) history.Record {
		return history.Record{T: int64(at), Kind: k, Dev: "ann", Life: 1, Conn: name, Resumed: k == history.Open}
	}
	comes := func(at time.Duration) history.Record {
		r := wire("ann", "ann#2", "w", "bob", "ann", 7)
		r.T = int64(at)
		return r
	}
	for _, c := range []struct {
		name string
		add  []history.Record
		want int
	}{
		{"it never comes", nil, 1},
		{"it comes after 20 s", []history.Record{comes(82 * time.Second)}, 0},
		{"it comes after 40 s", []history.Record{comes(102 * time.Second)}, 1},
		{"the connection ends after 20 s", []history.Record{conn(history.Close, "ann#2", 82*time.Second)}, 0},
		{"the connection ends after 40 s", []history.Record{conn(history.Close, "ann#2", 102*time.Second)}, 1},
		{"the next connection has less than 30 s", []history.Record{conn(history.Close, "ann#2", 82*time.Second),
			conn(history.Open, "ann#3", 100*time.Second)}, 0},
		{"the next connection has more than 30 s", []history.Record{conn(history.Close, "ann#2", 82*time.Second),
			conn(history.Open, "ann#3", 90*time.Second)}, 1},
	} {
		recs := late(t, story())
		i := indexOf(recs, history.Outbox, any1)
		recs = append(recs[:i:i], append(c.add, recs[i:]...)...)
		if rep := check(t, recs); rep.Counts[Hole] != c.want {
			t.Errorf("%s: reported %d times, want %d\n%s", c.name, rep.Counts[Hole], c.want, rep)
		}
	}
}

// w was sent while ann had her first connection and did not come on the second. When the
// second resumes after a crash, the state may be older than w, or not know of it.
func TestACrashBeginsANewChain(t *testing.T) {
	for _, crash := range []bool{false, true} {
		recs := late(t, story())
		recs = move(recs, indexOf(recs, history.Send, cid("w")), indexOf(recs, history.Close, dev("ann")))
		if crash {
			recs = insert(history.Open, func(r *history.Record) bool { return r.Conn == "ann#2" },
				history.Record{Kind: history.End, Dev: "ann", Life: 1, Code: 1})(t, recs)
		}
		if rep := check(t, recs); (rep.Counts[Hole] == 0) != crash {
			t.Errorf("crash %v: reported %d times\n%s", crash, rep.Counts[Hole], rep)
		}
	}
}
