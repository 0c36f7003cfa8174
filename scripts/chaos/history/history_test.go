package history

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	want := []Record{
		{Kind: Run, Note: "a <note>", Env: map[string]string{"seed": "1"}},
		{Kind: Begin, User: "a/*", Dev: "a/*|phone", Life: 1, Cursors: map[string]int64{"d:a:b": 7}},
		{Kind: Wire, Dev: "x", Life: 2, Conn: "x#1", Conv: "c", Seq: 9, CID: "id", From: "a", To: "b", Body: `{"n":"\u2028"}`},
	}
	for _, r := range want {
		w.Add(r)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var got []Record
	last := int64(0)
	err := Scan(&b, func(r Record) error {
		if r.T < last {
			t.Errorf("time went back from %d to %d", last, r.T)
		}
		last, r.T = r.T, 0
		got = append(got, r)
		return nil
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, %v", got, err)
	}
}

func TestRecordsStandInTheOrderOfTheirTimes(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				w.Add(Record{Kind: Synced})
			}
		})
	}
	all.Wait()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	n, last := 0, int64(0)
	err := Scan(&b, func(r Record) error {
		if r.T < last {
			t.Fatalf("record %d is older than the one before it", n)
		}
		n, last = n+1, r.T
		return nil
	})
	if err != nil || n != 4000 {
		t.Fatalf("%d records, %v", n, err)
	}
}

func TestATornHistoryIsTold(t *testing.T) {
	if err := Scan(strings.NewReader(`{"k":"run"}`+"\n"+`{"k":"wi`), func(Record) error { return nil }); err == nil {
		t.Error("a torn line was taken for the end")
	}
	stop := errors.New("enough")
	if err := Scan(strings.NewReader(`{"k":"run"}{"k":"run"}`), func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("each's error became %v", err)
	}
}

// A disk that is full is told at the end.
func TestAFailedWriteIsTold(t *testing.T) {
	w := NewWriter(full{})
	for range 20_000 {
		w.Add(Record{Kind: Synced, Note: strings.Repeat("x", 100)})
	}
	if err := w.Flush(); !errors.Is(err, errFull) {
		t.Errorf("Flush returned %v", err)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
