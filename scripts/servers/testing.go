package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// NATS starts a nats-server that is shut down at the test's end. Its log is shown when
// the test fails.
func NATS(t testing.TB, opts ...func(*NATSOptions)) *NATSServer {
	t.Helper()
	o := NATSOptions{StoreDir: t.TempDir(), Log: testLog(t, "nats")}
	for _, opt := range opts {
		opt(&o)
	}
	s, err := StartNATS(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// Conn returns a connection of the test's own, closed at its end.
func (s *NATSServer) Conn(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	s.conns = append(s.conns, nc)
	return nc
}

// Ferret starts FerretDB with a folder of the test's own, and returns an address that
// names an empty database. It is stopped at the test's end: whatever connects to it
// should be closed before, by a Cleanup registered after this call.
func Ferret(t testing.TB) (uri string) {
	t.Helper()
	return database(t, FerretServerOf(t).URI())
}

// FerretServerOf is Ferret for a test that takes the server down and up again.
func FerretServerOf(t testing.TB) *FerretServer {
	t.Helper()
	s, err := NewFerretServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// shared is the mongod of a test process whose TestMain is Main.
var shared struct {
	mu     sync.Mutex
	used   bool // Main runs
	dir    string
	server *Mongod
}

// Main runs a package's tests, then stops what they shared, and ends the process. checks
// run last, when nothing of this package is left: a goroutine-leak check for example.
func Main(m *testing.M, checks ...func() error) {
	shared.mu.Lock()
	shared.used = true
	shared.mu.Unlock()
	code := m.Run()
	stopShared()
	for _, check := range checks {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func stopShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		shared.server.Kill()
		_ = os.RemoveAll(shared.dir) // a rest of it harms nobody, and the next run removes it
	}
}

// Mongo returns the address of an empty database on a real MongoDB server: the one that
// MONGODB_URI names, or a mongod that is started for this test process. The database is
// dropped at the test's end. Without a server the test is skipped; with CI=true it fails.
func Mongo(t testing.TB) (uri string) {
	t.Helper()
	base := os.Getenv("MONGODB_URI")
	if base == "" {
		base = sharedMongod(t)
	}
	uri = database(t, base)
	t.Cleanup(func() { dropDatabase(t, uri) })
	return uri
}

// MongodOf starts a mongod of the test's own, for tests that kill it, set fail points, or
// add arguments (see StartMongod).
func MongodOf(t testing.TB, args ...string) *Mongod {
	t.Helper()
	m, err := StartMongod(t.Context(), t.TempDir(), args...)
	if err != nil {
		skipWithout(t, err)
	}
	t.Cleanup(m.Kill)
	return m
}

func sharedMongod(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.used {
		return MongodOf(t).URI()
	}
	if shared.server != nil {
		return shared.server.URI()
	}
	removeLeftovers()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", leftoverPrefix, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	server, err := StartMongod(context.Background(), dir)
	if err != nil {
		_ = os.RemoveAll(dir) // empty
		skipWithout(t, err)
	}
	shared.dir, shared.server = dir, server
	return server.URI()
}

const leftoverPrefix = "wirepost-mongod-"

// removeLeftovers removes the folders of test processes that ended without their Main.
func removeLeftovers() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), leftoverPrefix+"*"))
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(strings.TrimPrefix(filepath.Base(dir), leftoverPrefix), "%d-", &pid); err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) {
			_ = os.RemoveAll(dir)
		}
	}
}

func skipWithout(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") != "true" && errors.Is(err, ErrNoMongod) {
		t.Skip("the MongoDB half is skipped: ", err)
	}
	t.Fatal(err)
}

// database names a database of a random name in an address, which may hold several hosts.
func database(t testing.TB, base string) string {
	t.Helper()
	scheme, rest, found := strings.Cut(base, "://")
	if !found {
		t.Fatalf("%q is no address of a MongoDB server", base)
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + hosts + "/wp_" + strings.ToLower(rand.Text()[:12]) + "?" + query
}

func dropDatabase(t testing.TB, uri string) {
	cs, err := connstring.ParseAndValidate(uri)
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err == nil {
		defer func() { _ = client.Disconnect(ctx) }()
		err = client.Database(cs.Database).Drop(ctx)
	}
	if err != nil {
		t.Errorf("drop the test's database: %v", err)
	}
}
