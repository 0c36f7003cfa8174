package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/servers"
)

// built is what TestMain has built, in a folder that it removes.
var built fleet.Binaries

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wirepost-fleet-")
	if err == nil {
		built, err = fleet.Build(context.Background(), "../../..", dir, fleet.BuildOptions{Ferret: true})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for _, check := range []func() error{func() error { return os.RemoveAll(dir) }, func() error { return goleak.Find() }} {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// start starts a fleet that is closed at the test's end; its logs are shown if it fails.
func start(t *testing.T, s fleet.Spec) *fleet.Fleet {
	t.Helper()
	if s.Store.Kind == fleet.Mongo && built.Mongod == "" && os.Getenv("CI") != "true" {
		t.Skip("needs a mongod: ", servers.ErrNoMongod)
	}
	s.Dir, s.Bin = t.TempDir(), built
	began := time.Now()
	f, err := fleet.Start(within(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		for _, p := range f.Processes() {
			if p.Running() {
				t.Errorf("%s runs after Close", p)
			}
			if t.Failed() {
				t.Logf("log of %s:\n%s", p, p.Tail(3000))
			}
		}
	})
	t.Logf("the fleet was ready after %v", time.Since(began).Round(time.Millisecond))
	return f
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestFleet(t *testing.T) {
	f := start(t, fleet.Spec{Edges: 2, Workers: 2, NATS: 3, Store: fleet.Store{Kind: fleet.Mongo, Members: 3}})
	if _, err := f.Primary(within(t, time.Second)); err != nil {
		t.Error(err)
	}
	if err := f.Edges()[0].Start(); !errors.Is(err, fleet.ErrRunning) {
		t.Error(err)
	}
	for _, u := range f.Usage() {
		t.Logf("%v %v %d", u.Process, u.CPU, u.RSS>>20)
	}
}

func TestFerret(t *testing.T) {
	start(t, fleet.Spec{Edges: 1, Workers: 1, NATS: 1, Store: fleet.Store{Kind: fleet.Ferret}})
}
