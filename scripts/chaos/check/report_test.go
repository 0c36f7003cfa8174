package check

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/history"
)

// A violation is shown with the records of its message, in order.
func TestAViolationIsShownWithWhatIsAroundIt(t *testing.T) {
	recs := drop(history.Ack, cid("y"))(t, story())
	rep := check(t, recs)
	if len(rep.Violations) != 1 || rep.Violations[0].Rule != Unresolved {
		t.Fatalf("reported %+v", rep.Violations)
	}
	around := rep.Violations[0].Around
	if len(around) == 0 || len(around) > maxAround {
		t.Fatalf("%d records are shown", len(around))
	}
	for i, r := range around {
		if r.CID != "y" {
			t.Errorf("a record of something else is shown: %+v", r)
		}
		if i > 0 && r.T < around[i-1].T {
			t.Errorf("record %d is older than the one before it", i)
		}
	}
	if !slices.ContainsFunc(around, func(r history.Record) bool { return r.Kind == history.Send && r.Body == "body of y" }) {
		t.Errorf("the send is not shown")
	}
	for _, want := range []string{`rule "unresolved" is broken, 1 times`, "y of ann", "body=body of y", `broken rules: "unresolved" 1`, "partition", "a story"} {
		if !strings.Contains(rep.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, rep)
		}
	}
	var b bytes.Buffer
	if n, err := rep.WriteTo(&b); err != nil || n != int64(b.Len()) || b.String() != rep.String() {
		t.Errorf("WriteTo wrote %d of %d bytes, %v", n, b.Len(), err)
	}
}

// A rule that is broken a thousand times is shown a few times and counted always.
func TestViolationsAreBounded(t *testing.T) {
	recs := story()
	for i := range 1000 {
		recs = append(recs[:len(recs)-1], history.Record{Kind: history.Dead, CID: string(rune('α' + i)), T: recs[len(recs)-1].T}, recs[len(recs)-1])
	}
	rep := check(t, recs)
	if n := rep.Counts[DeadSend]; n != 1000 {
		t.Errorf("counted %d", n)
	}
	if n := len(rep.Violations); n != DefaultLimits().Shown {
		t.Errorf("%d are shown", n)
	}
	if want := "… and 990 more"; !strings.Contains(rep.String(), want) {
		t.Errorf("the report lacks %q", want)
	}
}

// The history may stand anywhere in a file.
func TestCheckReadsFromWhereTheReaderStands(t *testing.T) {
	raw := append([]byte("not a record\n"), encode(t, drop(history.Ack, cid("y"))(t, story()))...)
	r := bytes.NewReader(raw)
	if _, err := r.Seek(int64(len("not a record\n")), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	rep, err := Check(r, DefaultLimits())
	if err != nil || len(rep.Violations) != 1 || len(rep.Violations[0].Around) == 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
}

func TestAnUnreadableHistoryIsAnError(t *testing.T) {
	if _, err := Check(strings.NewReader(`{"k":"run"}{"k":`), DefaultLimits()); err == nil {
		t.Error("half a record was read")
	}
	if _, err := Check(failing{}, DefaultLimits()); !errors.Is(err, errBroken) {
		t.Errorf("Check returned %v", err)
	}
}

var errBroken = errors.New("broken disk")

type failing struct{}

func (failing) Read([]byte) (int, error)       { return 0, errBroken }
func (failing) Seek(int64, int) (int64, error) { return 0, nil }

func TestAnEmptyHistoryIsTorn(t *testing.T) {
	rep := check(t, nil)
	if rep.OK() || rep.Counts[Torn] != 1 {
		t.Errorf("reported %v", rep.Counts)
	}
}

// The figures of the story: answers after 50 ms to 17 s, and what the faults did.
func TestTheFiguresOfARun(t *testing.T) {
	rep := check(t, story())
	s := rep.Stats
	if s.Devices != 3 || s.Lives != 4 || s.Connections != (Connections{Resumed: 2, Anew: 3}) || s.Dead != (DeadStats{1, 1}) {
		t.Errorf("counted %+v", s)
	}
	if s.Ack.N != 7 || s.Ack.P50 != 50*time.Millisecond && s.Ack.P50 != 60*time.Millisecond || s.Ack.Max < 16*time.Second || s.Live.N != 7 || s.Live.Max <= s.Ack.Max {
		t.Errorf("acknowledged within %+v, delivered within %+v", s.Ack, s.Live)
	}
	if len(rep.Faults) != 2 {
		t.Fatalf("faults %+v", rep.Faults)
	}
	p, k := rep.Faults[0], rep.Faults[1]
	if p.Name != "partition" || p.Count != 1 || p.Acked != 1 || p.Outage < 16*time.Second || p.Judged > time.Second || p.Judged == 0 {
		t.Errorf("partition: %+v", p)
	}
	if k.Name != "kill edge" || k.Count != 1 || k.Acked != 1 || k.Outage != 20*time.Millisecond || k.Judged != k.Outage {
		t.Errorf("kill edge: %+v", k)
	}
}

// A violation is put down to the fault that was at work when the message was sent.
func TestViolationsArePutDownToFaults(t *testing.T) {
	recs := without(story(), cid("slow"), history.Row)
	recs = edit(history.Ack, cid("z"), func(r *history.Record) { r.Seq = 6 })(t, recs)
	f := check(t, recs).Faults
	if f[0].Lost != 1 || f[0].Duplicated != 0 || f[1].Lost != 0 || f[1].Duplicated != 1 {
		t.Errorf("put down %+v", f)
	}
}
