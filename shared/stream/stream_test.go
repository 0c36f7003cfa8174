package stream_test

import (
	"testing"

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
