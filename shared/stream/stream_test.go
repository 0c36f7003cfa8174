package stream_test

import (
	"math"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/stream"
)

func TestParseDown(t *testing.T) {
	d := stream.DownName{Shards: 4, Epoch: "k3x9", Shard: 3}
	if got, err := stream.ParseDown(d.String()); err != nil || got != d {
		t.Errorf("ParseDown(%s) = %v, %v", d, got, err)
	}
	for _, name := range []string{"", "DOWN", "UP_0", "DOWN_4_k_4", "DOWN_4_K_0", "DOWN_04_k_0", "DOWN_4__0", "DOWN_4_k_-1", "DOWN_4_k_0_0", "DOWN_4_aaaaaaaaaaaaaaaaa_0"} {
		if d, err := stream.ParseDown(name); err == nil {
			t.Errorf("ParseDown(%q) = %v, want an error", name, d)
		}
	}
}

func TestIncarnation(t *testing.T) {
	at := time.Date(2026, time.November, 25, 12, 0, 0, 0, time.UTC)
	first := stream.FirstSeq(at)
	if n := stream.Incarnation(first); n != uint32(at.Sub(time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)).Seconds()*4) {
		t.Errorf("incarnation %d", n)
	}
	if stream.Incarnation(first-1) == stream.Incarnation(first) || stream.Incarnation(first+1<<31-1) != stream.Incarnation(first) {
		t.Error("an incarnation is not the 2³¹ sequences from its first on")
	}
	if next := stream.FirstSeq(at.Add(250 * time.Millisecond)); next != first+1<<31 {
		t.Errorf("the next incarnation begins at %d, want %d", next, first+1<<31)
	}
	if end := stream.FirstSeq(time.Date(2058, time.December, 31, 0, 0, 0, 0, time.UTC)); end < first || end > math.MaxInt64-1<<31 {
		t.Errorf("in 2058 it begins at %d", end)
	}
	if stream.Incarnation(1) != 0 || stream.Incarnation(1<<31-1) != 0 {
		t.Error("a stream that begins at 1 has no incarnation")
	}
}
