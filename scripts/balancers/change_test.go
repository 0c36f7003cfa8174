package balancers

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// While each layer reads its configuration anew, twice, nothing is lost: those who are
// connected stay, their messages arrive, and newcomers come in.
func TestReload(t *testing.T) {
	t.Parallel()
	onEachWay(t, shared, func(t *testing.T, r *road) {
		ann, bob := r.device(t, r.slug()+"-ann"), r.device(t, r.slug()+"-bob")
		stop := chat(t, ann, bob, r.slug()+"-bob")
		came, end := r.newcomers(t, r.slug()+"-newcomer")
		for range 2 {
			for _, l := range r.layers {
				l.renew(t)
				more := came() + 20
				eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= more || t.Failed() })
			}
		}
		end()
		stop()
		for name, d := range map[string]*device{"ann": ann, "bob": bob} {
			if _, logins, ends := d.seen(); logins != 1 || len(ends) > 0 {
				t.Errorf("%s was connected %d times: %v", name, logins, ends)
			}
		}
		t.Logf("%d newcomers", came())
	})
}

// An edge that goes away takes nobody with it: its clients go on at the other one, and
// newcomers are not refused at any moment.
func TestEdgeLeaves(t *testing.T) {
	t.Parallel()
	s := &system{dir: t.TempDir(), bin: shared.bin, nats: shared.nats}
	// Time for HAProxy to notice: 2 s by its configuration.
	pair, err := s.pair("leaving", "DRAIN_NOTICE=4s", "LOG_FORMAT=text")
	t.Cleanup(func() {
		for _, e := range pair {
			e.kill()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.edges = pair
	var there sync.WaitGroup
	there.Add(len(ways))
	leave := sync.OnceFunc(func() {
		there.Wait()
		_ = pair[0].cmd.Process.Signal(syscall.SIGTERM)
		<-pair[0].done
	})
	onEachWay(t, s, func(t *testing.T, r *road) {
		arrived := sync.OnceFunc(there.Done)
		defer arrived()
		ann, bob := r.device(t, r.slug()+"-carol"), r.device(t, r.slug()+"-dave")
		stop := chat(t, ann, bob, r.slug()+"-dave")
		came, end := r.newcomers(t, r.slug()+"-guest")
		eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= 20 || t.Failed() })
		arrived()
		leave()
		more := came() + 20
		eventually(t, 30*time.Second, "newcomers come in", func() bool { return came() >= more || t.Failed() })
		end()
		stop()
		t.Logf("%d newcomers", came())
	})
	if code := pair[0].cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the edge ended with %d:\n%s", code, pair[0].text())
	}
}
