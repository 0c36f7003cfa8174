package downlink

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/stream"
)

// The streams were deleted and made anew under connected clients, with and without
// frames in the new ones: everybody is told, new tokens resume, old ones do not.
func TestNewIncarnation(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	var rs []*receiver
	for i := range 40 {
		r := e.login(t, fmt.Sprint("u", i), "")
		publish(t, js, r.user.Raw(), "before")
		r.untilFrames(t, "before")
		rs = append(rs, r)
	}
	old := rs[0].token().String()
	for i := range shards {
		if err := js.DeleteStream(t.Context(), downName(t, js, fmt.Sprint("u", i))); err != nil && i == 0 {
			t.Fatal(err)
		}
	}
	js = ensure(t, s.Conn(t), layout(1))
	for _, r := range rs[:20] { // what edges see first: a frame of the new incarnation
		publish(t, js, r.user.Raw(), "after")
	}
	for _, r := range rs {
		if !told(t, r, old) {
			continue
		}
		r.until(t, "resync", func() bool { return r.has("resync") })
	}
	for _, r := range rs[:20] {
		r.until(t, "the new frame", func() bool { return len(r.frames()) > 1 })
	}
	for _, r := range rs {
		if !told(t, r, old) {
			continue
		}
		epochs := map[string]bool{}
		for _, h := range r.history() {
			if h.at.IsZero() {
				continue
			}
			epoch, _, _ := strings.Cut(h.at.String(), ".")
			if epochs[epoch] = true; len(epochs) == 2 && h.kind != "resync" {
				t.Errorf("%s: %s at %s came before the resync", r.user, h.kind, h.at)
				break
			} else if len(epochs) == 2 {
				break
			}
		}
	}
	if r := e.login(t, "u0", old); r.resumed() {
		t.Error("a token of the old incarnation was resumed")
	}
	a := rs[0]
	publish(t, js, "u0", "last")
	a.until(t, "the last frame", func() bool { f := a.frames(); return f[len(f)-1] == "last" })
	if r := e.login(t, "u0", a.token().String()); !r.resumed() {
		t.Error("a token of the new incarnation was not resumed")
	}
}

// told reports whether the user's shard is one of those that were deleted: both, unless
// u0 and u1 share one.
func told(t *testing.T, r *receiver, old string) bool {
	t.Helper()
	return tokenOf(t, old).String() != "" && shardOf(r.history()[0].at.String()) == shardOf(old)
}

func shardOf(token string) string { return strings.Split(token, ".")[1] }

// The server came back from an older disk: the same incarnation by name, but its
// sequences start again behind what was seen. Everybody is told, and a token from the
// lost time is not resumed.
func TestOlderDisk(t *testing.T) {
	s := servers.NATS(t)
	js := ensure(t, s.Conn(t), layout(1))
	e := newEdge(t, s.URL())
	a := e.login(t, "u1", "")
	publish(t, js, "u1", "1")
	a.untilFrames(t, "1")
	early := a.token().String()
	s.Shutdown()
	disk := t.TempDir()
	if err := os.CopyFS(disk, os.DirFS(s.StoreDir())); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	ids := []string{"1"}
	for i := range 50 {
		ids = append(ids, fmt.Sprint("lost ", i))
		publish(t, js, "u1", ids[i+1])
	}
	a.untilFrames(t, ids...)
	late := a.token().String()
	s.Shutdown()
	if err := os.RemoveAll(s.StoreDir()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.StoreDir(), os.DirFS(disk)); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	a.until(t, "resync", func() bool { return a.has("resync") })
	publish(t, js, "u1", "new")
	a.untilFrames(t, append(ids, "new")...)
	if r := e.login(t, "u1", late); r.resumed() {
		t.Errorf("resumed from %s, which the older disk does not know", late)
	}
	if r := e.login(t, "u1", early); !r.resumed() {
		t.Errorf("not resumed from %s, which the older disk knows", early)
	}
	d, err := stream.ParseDown(downName(t, js, "u1"))
	if err != nil || !strings.HasPrefix(late, d.Epoch) {
		t.Errorf("the epoch is another one: %v, %v", d, err)
	}
}
