package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/wirepost/wirepost/scripts/child"
)

// ErrNoMongod is returned when there is neither a mongod on PATH nor one that
// `make mongod` put into the cache folder of the checkout.
var ErrNoMongod = errors.New("no mongod: put one on PATH, or run `make mongod`")

const (
	replicaSet = "rs0"
	// electionTimeout of the one-node replica set, in milliseconds: short, because there
	// is nobody to wait for.
	electionTimeout = 500
	// cachedMongod is where `make mongod` puts the server, under the repository's root.
	cachedMongod = ".cache/mongod/fiftyone/db/bin/mongod"
)

// Mongod is a real mongod as a one-node replica set, a child of this process.
type Mongod struct {
	binary, dir string
	args        []string // more of them
	port        int
	initiated   bool
	proc        *process
}

// FindMongod returns the path of the server to start.
func FindMongod() (string, error) {
	if path, err := exec.LookPath("mongod"); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", ErrNoMongod
	}
	for ; ; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, cachedMongod); executable(path) {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", ErrNoMongod
		}
	}
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0
}

// StartMongod starts a mongod over a folder of its own and returns when it takes writes.
// Its test commands (fail points) are enabled. args are added to its command line; without
// TLS it must go on to be reached.
func StartMongod(ctx context.Context, dir string, args ...string) (*Mongod, error) {
	binary, err := FindMongod()
	if err != nil {
		return nil, err
	}
	m := &Mongod{binary: binary, dir: dir, args: args}
	if m.port, err = unusedPort(); err != nil {
		return nil, err
	}
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// URI returns the address of the replica set; it stays the same over a restart.
func (m *Mongod) URI() string {
	return fmt.Sprintf("mongodb://127.0.0.1:%d/?replicaSet=%s", m.port, replicaSet)
}

// Start starts the server after Stop or Kill, on the same port and folder.
func (m *Mongod) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	proc, err := startProcess(exec.Command(m.binary, append([]string{
		"--replSet", replicaSet, "--bind_ip", "127.0.0.1", "--port", strconv.Itoa(m.port),
		"--dbpath", m.dir, "--logpath", m.logFile(), "--logappend", "--nounixsocket",
		"--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5",
		"--setParameter", "enableTestCommands=1",
		"--setParameter", "diagnosticDataCollectionEnabled=false"}, m.args...)...))
	if err != nil {
		return fmt.Errorf("start mongod: %w", err)
	}
	m.proc = proc
	if err := m.becomePrimary(ctx); err != nil {
		m.Kill()
		return fmt.Errorf("start mongod: %w (its log: %s)", err, m.tail())
	}
	return nil
}

// PID returns the server's process id, 0 while it is down.
func (m *Mongod) PID() int {
	if m.proc == nil {
		return 0
	}
	return m.proc.cmd.Process.Pid
}

// Kill ends the server with SIGKILL and returns when it is gone.
func (m *Mongod) Kill() { m.end(syscall.SIGKILL) }

// Stop ends the server with SIGTERM and returns when it is gone.
func (m *Mongod) Stop() { m.end(syscall.SIGTERM) }

// Pause stops the server's clock (SIGSTOP); Resume lets it go on.
func (m *Mongod) Pause() { _ = m.proc.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (m *Mongod) Resume() { _ = m.proc.cmd.Process.Signal(syscall.SIGCONT) }

func (m *Mongod) end(sig syscall.Signal) {
	if m.proc == nil {
		return
	}
	m.proc.end(sig)
	m.proc = nil
}

func (m *Mongod) logFile() string { return filepath.Join(m.dir, "mongod.log") }

// tail returns the end of the server's log.
func (m *Mongod) tail() string {
	b, err := os.ReadFile(m.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// becomePrimary initiates the replica set at the first start and waits until the server
// takes writes.
func (m *Mongod) becomePrimary(ctx context.Context) error {
	client, err := mongo.Connect(options.Client().
		ApplyURI(fmt.Sprintf("mongodb://127.0.0.1:%d/?directConnection=true", m.port)).
		SetHeartbeatInterval(500 * time.Millisecond))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	admin := client.Database("admin")
	for {
		var hello struct {
			Writable bool `bson:"isWritablePrimary"`
		}
		err := m.initiate(ctx, admin)
		if err == nil {
			err = admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
		}
		if err == nil && hello.Writable {
			return nil
		}
		select {
		case <-m.proc.gone:
			return errors.New("mongod ended")
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errNotReady, err)
		case <-time.After(waitStep): // an election sends no signal
		}
	}
}

func (m *Mongod) initiate(ctx context.Context, admin *mongo.Database) error {
	if m.initiated {
		return nil
	}
	const alreadyInitialized = 23
	err := admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: bson.D{
		{Key: "_id", Value: replicaSet},
		{Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: fmt.Sprintf("127.0.0.1:%d", m.port)}}}},
		{Key: "settings", Value: bson.D{{Key: "electionTimeoutMillis", Value: electionTimeout}}},
	}}}).Err()
	var se mongo.ServerError
	if err != nil && (!errors.As(err, &se) || !se.HasErrorCode(alreadyInitialized)) {
		return err
	}
	m.initiated = true
	return nil
}

// process is one that dies with this one.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been waited for
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	s := &process{cmd: cmd, gone: make(chan struct{})}
	if err := child.Start(cmd, func() { close(s.gone) }); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *process) end(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	<-s.gone
}
