package lane_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/lane"
	"github.com/wirepost/wirepost/worker/messaging"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	childEnv     = "WIREPOST_TEST_LANE_WORKER" // "<name> <nats url> <lanes>": this process is a worker
	storeSubject = "test.store"                // the test's store, asked by the workers' processes
)

// remote is a business whose store is in the test's process.
type remote struct{ nc *nats.Conn }

func (r remote) Work(ctx context.Context, batch []envelope.Event) ([]messaging.Dead, error) {
	var b strings.Builder
	for _, ev := range batch {
		fmt.Fprintf(&b, "%s %s\n", ev.User.Token(), ev.Data)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := r.nc.RequestWithContext(ctx, storeSubject, []byte(b.String()))
	return nil, err
}

// child is the main function of a worker's process. SIGTERM stops it gracefully.
func child(spec string) error {
	part := strings.Fields(spec)
	lanes, err := strconv.Atoi(part[2])
	if err != nil {
		return err
	}
	nc, err := nats.Connect(part[1], nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	g, err := lane.New(js, lane.Config{Worker: part[0], Lanes: lanes, PinnedTTL: ttl, LeaseTTL: ttl}, remote{nc},
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return g.Run(ctx)
}

// serve answers the workers' processes from st.
func (st *store) serve(s *system) {
	s.t.Helper()
	sub, err := s.js.Conn().Subscribe(storeSubject, func(m *nats.Msg) {
		lines := bufio.NewScanner(strings.NewReader(string(m.Data)))
		for lines.Scan() {
			user, data, _ := strings.Cut(lines.Text(), " ")
			if id, err := userid.FromToken(user); err == nil {
				st.put(envelope.Event{User: id, Data: []byte(data)})
			}
		}
		_ = m.Respond(nil)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = sub.Unsubscribe() })
}

func (s *system) spawn(name string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", childEnv, name, s.server.URL(), s.layout.Lanes))
	cmd.Stderr = s.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// Real processes are killed, stopped past their pins and leases, and terminated, at
// random, under load.
func TestProcessesAreKilledAndPaused(t *testing.T) {
	t.Parallel()
	s := newSystem(t, streams.Layout{Lanes: 4})
	st := newStore()
	st.serve(s)
	p := s.sender(users(4)...)
	stop := p.trickle()
	names := []string{"p1", "p2", "p3"}
	procs := map[string]*exec.Cmd{}
	for _, n := range names {
		procs[n] = s.spawn(n)
	}
	defer func() {
		for _, c := range procs {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for range 8 {
		have, _ := st.count()
		st.await(s, have+300)
		name := names[random.IntN(len(names))]
		c := procs[name]
		switch what := random.IntN(3); what {
		case 0:
			_ = c.Process.Signal(syscall.SIGSTOP)
			time.Sleep(ttl*3/2 + time.Duration(random.IntN(1000))*time.Millisecond)
			_ = c.Process.Signal(syscall.SIGCONT)
		default:
			if what == 1 {
				_ = c.Process.Signal(syscall.SIGTERM)
			} else {
				_ = c.Process.Kill()
			}
			if err := c.Wait(); what == 1 && err != nil {
				t.Errorf("terminated worker: %v", err)
			}
			procs[name] = s.spawn(name)
		}
	}
	stop()
	st.await(s, p.total())
	s.emptied()
	st.check(t, p.total())
	s.dead(0)
	_, twice := st.count()
	t.Logf("%d frames, %d of them worked twice", p.total(), twice)
}
