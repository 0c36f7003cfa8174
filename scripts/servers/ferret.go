package servers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// StartFerret starts FerretDB over SQLite files in dir, which is made if it is missing,
// and returns its address. stop ends it and returns when it is down; FerretDB gives
// clients that are still connected three seconds, so close them first. The end of ctx
// stops it too.
//
// SQLite runs with a write-ahead log and synchronous=full: what was acknowledged is on
// the disk, and neither kill -9 nor a power loss takes it away.
func StartFerret(ctx context.Context, dir string) (uri string, stop func(), err error) {
	return startFerret(ctx, dir, 0)
}

// startFerret is StartFerret on a given port, 0 for a free one.
func startFerret(ctx context.Context, dir string, port int) (string, func(), error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, fmt.Errorf("start FerretDB: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("start FerretDB: %w", err)
	}
	f, err := newFerret(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: fmt.Sprintf("127.0.0.1:%d", port)},
		Handler:   "sqlite",
		SQLiteURL: sqliteURL(dir),
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return "", nil, fmt.Errorf("start FerretDB in %s: %w", dir, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})    // closed by the goroutine below when FerretDB is down
	indexed := make(chan struct{}) // closed when the indexer is down
	go func() {
		defer close(indexed)
		indexTables(ctx, dir)
	}()
	go func() {
		defer close(done)
		_ = f.Run(ctx) // it returns nil only
		<-indexed
	}()
	return f.MongoDBURI(), func() { cancel(); <-done }, nil
}

var making sync.Mutex // held while a FerretDB is made

// newFerret makes one FerretDB at a time: ferretdb.New writes to a variable of its package
// (version.Get().Package in 1.24), which is a data race between two of them.
func newFerret(cfg *ferretdb.Config) (*ferretdb.FerretDB, error) {
	making.Lock()
	defer making.Unlock()
	return ferretdb.New(cfg)
}

// sqliteURL names a folder of SQLite files for FerretDB. FerretDB adds busy_timeout and
// journal_mode(wal) to it.
func sqliteURL(dir string) string {
	u := url.URL{Scheme: "file", Opaque: dir + "/"}
	u.RawQuery = url.Values{"_pragma": {"synchronous(full)"}}.Encode()
	return u.String()
}

// FerretServer is a FerretDB that can be taken down and up again on the same port and
// folder.
type FerretServer struct {
	dir  string
	port int
	uri  string
	stop func()
}

// NewFerretServer starts FerretDB over a folder.
func NewFerretServer(dir string) (*FerretServer, error) {
	s := &FerretServer{dir: dir}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// URI returns the address, which stays the same over a restart.
func (s *FerretServer) URI() string { return s.uri }

// Stop takes the server down; it does nothing when it is down.
func (s *FerretServer) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Start takes the server up again after Stop.
func (s *FerretServer) Start() error {
	uri, stop, err := startFerret(context.Background(), s.dir, s.port)
	if err != nil {
		return err
	}
	u, err := url.Parse(uri)
	if err != nil {
		stop()
		return fmt.Errorf("address of FerretDB: %w", err)
	}
	s.uri, s.stop = uri, stop
	if _, err := fmt.Sscanf(u.Port(), "%d", &s.port); err != nil {
		stop()
		return fmt.Errorf("port of FerretDB: %w", err)
	}
	return nil
}

// unusedPort returns a port of 127.0.0.1 that was free a moment ago.
func unusedPort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// waitStep is how often a start that sends no signal is looked at.
const waitStep = 10 * time.Millisecond
