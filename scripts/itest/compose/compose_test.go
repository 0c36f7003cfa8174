// Package compose_test lets the real servers read what k8s/compose gives them: the keys of
// setup.sh, NATS' configuration, nginx's, and Prometheus' if there is a promtool. What
// docker compose makes of compose.yaml is checked in k8s/test. No container runs.
package compose_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/nginx"
	"github.com/wirepost/wirepost/scripts/natssetup/setup"
	"github.com/wirepost/wirepost/scripts/servers"
)

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }

// k8s is the folder of the repository.
func k8s(t *testing.T) string {
	t.Helper()
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "k8s")
}

// set copies what setup.sh needs of the repository, runs it, and returns the copy's folder
// k8s/compose.
func set(t *testing.T) string {
	t.Helper()
	from, to := filepath.Dir(k8s(t)), t.TempDir()
	for _, name := range []string{"go.work", "go.work.sum", "edge", "worker", "shared", "scripts"} { // for go run
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(to, "k8s", "compose")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(from, "k8s", "compose"))); err != nil {
		t.Fatal(err)
	}
	run := func() string {
		out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "setup.sh")).CombinedOutput()
		if err != nil {
			t.Fatalf("setup.sh: %v: %s", err, out)
		}
		return string(out)
	}
	run()
	first := read(t, filepath.Join(dir, ".env"))
	if out := run(); !strings.Contains(out, "is there already") || read(t, filepath.Join(dir, ".env")) != first {
		t.Errorf("a second setup.sh changes .env: %s", out)
	}
	return dir
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What is secret is readable by its owner alone, is random, and is not empty.
func TestSetup(t *testing.T) {
	dir, other := set(t), set(t)
	env, another := read(t, filepath.Join(dir, ".env")), read(t, filepath.Join(other, ".env"))
	for _, name := range []string{"JWT_HS256_SECRET", "GRAFANA_PASSWORD", "MONGODB_PASSWORD", "MONGODB_ADMIN_PASSWORD", "MONGODB_KEY"} {
		one, two := value(env, name), value(another, name)
		if len(one) != 64 || one == two {
			t.Errorf("%s is %d characters, or the same twice", name, len(one))
		}
	}
	if user := value(env, "KEYS_USER"); user == "" || strings.HasPrefix(user, "0:") {
		t.Errorf("containers run as %q", user)
	}
	secrets := filepath.Join(dir, "secrets")
	for _, file := range []string{filepath.Join(dir, ".env"), filepath.Join(secrets, "edge", "nkey.seed"),
		filepath.Join(secrets, "replay", "nkey.seed"), filepath.Join(secrets, "worker", "nkey.seed")} {
		if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, fi.Mode(), err)
		}
	}
}

// A key that was retired is out of what the NATS server reads after setup.sh: the server's
// user may read it, and it stands in a folder, not at a name that was replaced.
func TestSetupAfterRetire(t *testing.T) {
	dir := set(t)
	keys, file := setup.Dir(filepath.Join(dir, "secrets")), filepath.Join(dir, "secrets", "nkeys", "nkeys.conf")
	before := read(t, file)
	if err := keys.Rotate("edge"); err != nil {
		t.Fatal(err)
	}
	if err := keys.Retire("edge"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "setup.sh")).CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v: %s", err, out)
	}
	if after := read(t, file); after == before || after != read(t, filepath.Join(dir, "secrets", setup.KeysFile)) {
		t.Error("the server goes on with the keys from before")
	}
	for name, want := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
}

// value of a variable in .env.
func value(env, name string) string {
	for line := range strings.Lines(env) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return v
		}
	}
	return ""
}

// nats-server runs with the configuration and the keys, and lets each role do what is its
// own.
func TestNATS(t *testing.T) {
	dir := set(t)
	keys := setup.Dir(filepath.Join(dir, "secrets"))
	url := startNATS(t, dir)
	worker := connect(t, url, keys.Seed("worker"), "_INBOX_worker")
	js, err := jetstream.New(worker)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "UP_0", Subjects: []string{"im.up.0.>"}}); err != nil {
		t.Errorf("a worker cannot make its streams: %v", err)
	}
	edge := connect(t, url, keys.Seed("edge"), "_INBOX_edge")
	if _, err := edge.Request("im.up.0.ann", []byte("{}"), 5*time.Second); err != nil {
		t.Errorf("an edge cannot publish: %v", err)
	}
	if _, err := edge.Request("$JS.API.STREAM.DELETE.UP_0", nil, 200*time.Millisecond); err == nil {
		t.Error("an edge may delete a stream")
	}
	if nc, err := nats.Connect(url, nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("somebody without a key is let in")
	}
}

// startNATS runs the server in this process. Its folders and its port are the test's.
func startNATS(t *testing.T, dir string) (url string) {
	t.Helper()
	etc := t.TempDir()
	for to, from := range map[string]string{"nats.conf": filepath.Join(dir, "nats.conf"), "accounts.conf": filepath.Join(k8s(t), "nats", "accounts.conf"),
		"nkeys/nkeys.conf": filepath.Join(dir, "secrets", "nkeys", "nkeys.conf")} {
		to = filepath.Join(etc, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(read(t, from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := server.ProcessConfigFile(filepath.Join(etc, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if o.Port != 4222 || o.HTTPPort != 8222 || o.HTTPHost != "127.0.0.1" || o.StoreDir != "/data/jetstream" || o.PidFile != "/var/run/nats/nats.pid" {
		t.Errorf("compose.yaml has other ports and folders: %d, %d, %s, %s", o.Port, o.HTTPPort, o.StoreDir, o.PidFile)
	}
	s, err := servers.StartNATS(servers.NATSOptions{StoreDir: t.TempDir(), Tune: func(base *server.Options) {
		o.Host, o.Port, o.StoreDir, o.PidFile, o.HTTPPort, o.NoSigs, o.NoLog = base.Host, base.Port, base.StoreDir, "", 0, true, true
		*base = *o
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s.URL()
}

func connect(t *testing.T, url, file, inbox string) *nats.Conn {
	t.Helper()
	pair, err := nkeys.ParseDecoratedUserNKey([]byte(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, nats.Nkey(public, pair.Sign), nats.CustomInboxPrefix(inbox), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// nginx takes the shipped configuration with the two files that compose.yaml puts into it.
func TestNginx(t *testing.T) {
	program, shipped := nginx.Need(t)
	dir := filepath.Join(t.TempDir(), "nginx")
	if err := nginx.Render(shipped, dir, nginx.Addresses{Listen: "127.0.0.1:8080"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"edges.conf", "log.conf", "outers.conf"} {
		if err := os.WriteFile(filepath.Join(dir, "local", name), []byte(read(t, filepath.Join(k8s(t), "compose", "nginx", name))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := nginx.Check(program, dir, nginx.Inner); err != nil {
		t.Error(err)
	}
}

// Prometheus takes its configuration, and the rules that it names.
func TestPrometheus(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		const missing = "needs promtool (Debian, Ubuntu: apt-get install prometheus)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	for name, from := range map[string]string{"prometheus.yml": "compose/prometheus.yml", "alerts.yaml": "monitoring/alerts.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, filepath.Join(k8s(t), from))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(promtool, "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v: %s", err, out)
	}
}
