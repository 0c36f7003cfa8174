package subject_test

import (
	"hash/fnv"
	"testing"

	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

func TestRoundTripOfHostileIDs(t *testing.T) {
	for _, raw := range []string{"u1", "*", ">", "a.b", "a/b", "a b", "😀", "im.up.0.x"} {
		id := userid.MustParse(raw)
		lane, got, err := subject.ParseUp(subject.Up(3, id))
		if err != nil || lane != 3 || got != id {
			t.Errorf("up of %q: %d %v %v", raw, lane, got, err)
		}
		shard, got, err := subject.ParseDown(subject.Down(11, id))
		if err != nil || shard != 11 || got != id {
			t.Errorf("down of %q: %d %v %v", raw, shard, got, err)
		}
	}
}

func TestParseRefusesForeignSubjects(t *testing.T) {
	for _, s := range []string{"", "im.up", "im.up.", "im.up.0", "im.up.0.", "im.up.00.u", "im.up.-1.u", "im.up.0.a.b", "im.down.0.u", "im.up.x.u"} {
		if _, _, err := subject.ParseUp(s); err == nil {
			t.Errorf("ParseUp(%q) accepted it", s)
		}
	}
}

// The pair without strings builds and reads what the one with strings does.
func TestLiveWithoutStrings(t *testing.T) {
	for _, raw := range []string{"u1", "*", ">", "a.b", "a/b", "a b", "😀"} {
		id := userid.MustParse(raw)
		s := subject.AppendLive([]byte("SUB "), 11, id)
		if string(s) != "SUB "+subject.Live(11, id) {
			t.Errorf("AppendLive of %q: %q", raw, s)
		}
		if shard, token, ok := subject.CutLive(s[4:]); !ok || shard != 11 || string(token) != id.Token() {
			t.Errorf("CutLive of %q: %d %q %v", s[4:], shard, token, ok)
		}
	}
	for _, s := range []string{"", "im.live", "im.live.", "im.live.0", "im.live..u", "im.live.00.u", "im.live.-1.u", "im.live.+1.u", "im.live.9999999999.u", "im.down.0.u", "im.live.x.u"} {
		if _, _, ok := subject.CutLive([]byte(s)); ok {
			t.Errorf("CutLive(%q) accepted it", s)
		}
		if _, _, err := subject.ParseLive(s); err == nil && s != "im.live.9999999999.u" {
			t.Errorf("ParseLive(%q) accepts it", s)
		}
	}
}

// The hash is part of the public contract: services in other languages compute it.
func TestHashIsFNV1a(t *testing.T) {
	for _, raw := range []string{"u1001", "a.b", "😀"} {
		id := userid.MustParse(raw)
		h := fnv.New32a()
		h.Write([]byte(id.Token()))
		if l, s := subject.Lane(id, 8), subject.Shard(id, 5); l != int(h.Sum32()%8) || s != int(h.Sum32()%5) {
			t.Errorf("%q: lane %d shard %d of hash %d", raw, l, s, h.Sum32())
		}
	}
}
