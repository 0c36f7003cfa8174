package e2e

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
)

const secret = "end-to-end-tests-sign-with-this-secret"

// system is two edges, two workers, a nats-server and a store.
type system struct {
	t       testing.TB
	nats    *servers.NATSServer
	edges   []*process
	workers []*process
}

// stores are the two kinds of store every test runs on.
var stores = []struct {
	name  string
	start func(testing.TB) (uri string)
}{{"ferretdb", servers.Ferret}, {"mongod", servers.Mongo}}

// onBothStores runs test once on each store.
func onBothStores(t *testing.T, test func(t *testing.T, uri string)) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) { test(t, s.start(t)) })
	}
}

// start boots a system over a store; env is for all of its processes.
func start(t testing.TB, uri string, env ...string) *system {
	t.Helper()
	s := &system{t: t, nats: servers.NATS(t)}
	env = append([]string{"NATS_URL=" + s.nats.URL()}, env...)
	for i := range 2 {
		s.workers = append(s.workers, newProcess(t, "worker", fmt.Sprintf("worker-%d", i),
			slices.Concat(env, []string{"MONGODB_URI=" + uri, "MONGODB_DATABASE=" + databaseOf(uri)})...))
		s.edges = append(s.edges, newProcess(t, "edge", fmt.Sprintf("edge-%d", i),
			slices.Concat(env, []string{"JWT_HS256_SECRET=" + secret})...))
	}
	s.awaitReady()
	return s
}

func (s *system) awaitReady() {
	s.t.Helper()
	for _, p := range slices.Concat(s.workers, s.edges) {
		p.awaitReady()
	}
}

// url is the WebSocket address of an edge.
func (s *system) url(edge int) string { return "ws://" + s.edges[edge].addr + "/ws" }

// wipeNATS ends the nats-server, deletes all of its data, and starts it again.
func (s *system) wipeNATS() {
	s.t.Helper()
	s.nats.Shutdown()
	if err := os.RemoveAll(s.nats.StoreDir()); err != nil {
		s.t.Fatal(err)
	}
	if err := s.nats.Restart(); err != nil {
		s.t.Fatal(err)
	}
}

func token(t testing.TB, user string) string {
	t.Helper()
	tok, err := devkeys.Token([]byte(secret), user, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// databaseOf is the path of a store's address: a database of the test's own.
func databaseOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.Path, "/")
}
