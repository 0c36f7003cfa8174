package manifests

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/wirepost/wirepost/edge"
)

const composeDir = "../compose"

// secrets are what setup.sh puts into .env, and compose.yaml insists on.
var secrets = map[string]string{
	"KEYS_USER": "65532:65532", "JWT_HS256_SECRET": strings.Repeat("0123456789abcdef", 4), "GRAFANA_PASSWORD": "some-password",
	"MONGODB_PASSWORD": "one", "MONGODB_ADMIN_PASSWORD": "two", "MONGODB_KEY": "three",
}

// compose reads the text of a compose file as docker compose does: by the schema of the
// specification, which knows no other fields, with merges and variables resolved.
func compose(text string, environ map[string]string) (*types.Project, error) {
	dir, err := filepath.Abs(composeDir)
	if err != nil {
		return nil, err
	}
	return loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: dir, Environment: maps.Clone(environ), // the loader adds to it
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml"), Content: []byte(text)}},
	})
}

func composeText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(composeDir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// walls are the networks that each service is in.
var walls = map[string][]string{
	"nginx": {"edges", "way-in"}, "edge-1": {"edges", "monitoring", "nats"}, "edge-2": {"edges", "monitoring", "nats"},
	"nats": {"nats"}, "worker": {"monitoring", "nats", "store"}, "mongodb": {"store"},
	"prometheus": {"monitoring", "way-in"}, "grafana": {"monitoring", "way-in"},
}

var composeChecks = map[string]func(*testing.T, *types.Project) problems{
	"networks":    checkWalls,
	"hardened":    checkHardened,
	"ports":       checkPublished,
	"environment": checkComposeEnvironment,
	"files":       checkMounts,
	"edges":       checkEdgeAddresses,
	"way in":      checkWayIn,
	"store":       checkStorePassword,
	"grace":       checkComposeGrace,
	"health":      checkHealth,
}

func TestCompose(t *testing.T) {
	p, err := compose(composeText(t), secrets)
	if err != nil {
		t.Fatal(err)
	}
	for name, check := range composeChecks {
		for _, problem := range check(t, p) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// Nothing secret is in the file, and without setup.sh nothing starts.
func TestComposeHasNoSecrets(t *testing.T) {
	for name := range secrets {
		without := maps.Clone(secrets)
		delete(without, name)
		p, err := compose(composeText(t), without)
		if name != "JWT_HS256_SECRET" {
			if err == nil {
				t.Errorf("it starts without %s", name)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := edge.LoadConfig(values(p.Services["edge-1"], nil)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("an edge without any key of tokens: %v", err)
		}
	}
	if m := regexp.MustCompile(`(?m)^ +\w*(PASSWORD|SECRET|_KEY)\w*: *[^$ ].*`).FindString(composeText(t)); m != "" {
		t.Errorf("compose.yaml has %q", m)
	}
}

// TestComposeBroken breaks one thing after the other, and sees that its check notices.
func TestComposeBroken(t *testing.T) {
	noticed := map[string]bool{}
	for _, b := range []struct{ check, old, new string }{
		{"load", "mem_limit: 1g", "memory_limit: 1g"},
		{"load", "networks: [store]", "networks: [shop]"},
		{"load", "x-edge: &edge\n", "x-edge:\n"},
		{"networks", "networks: [nats, store, monitoring]", "networks: [nats, store, monitoring, way-in]"},
		{"networks", "networks: [store]", "networks: [store, nats]"},
		{"networks", "store: {internal: true}", "store: {}"},
		{"networks", "networks: [nats]", "networks: [nats, monitoring]"},
		{"hardened", "read_only: true", "read_only: false"},
		{"hardened", "cap_drop: [ALL]", "cap_drop: [NET_RAW]"},
		{"hardened", `security_opt: ["no-new-privileges:true"]`, "security_opt: []"},
		{"hardened", "mem_limit: 1g", "mem_limit: 0"},
		{"hardened", "restart: unless-stopped", "restart: on-failure"},
		{"hardened", `user: "999:999"`, `user: "0:0"`},
		{"hardened", "image: mongo:8.0", "image: mongo:latest"},
		{"ports", "127.0.0.1:${PORT:-8080}:8080", "${PORT:-8080}:8080"},
		{"ports", "networks: [store]", "networks: [store]\n    ports: [\"127.0.0.1:27017:27017\"]"},
		{"environment", "NATS_NKEY:", "NATS_NKEYS:"},
		{"environment", "NATS_REPLAY_NKEY: /run/wirepost/replay/nkey.seed", "NATS_REPLAY_NKEY: \"\""},
		{"environment", "nats://nats:4222", "nats://mongodb:4222"},
		{"environment", "@mongodb:27017", "@store:27017"},
		{"environment", "replicas: 2", "replicas: 1"},
		{"files", "./secrets/replay:", "./secrets/reply:"},
		{"files", "./nats.conf:/etc/nats/nats.conf:ro", "./nats.conf:/etc/nats/nats.conf"},
		{"files", "../nats/accounts.conf", "../nats/rights.conf"},
		{"files", "NATS_NKEY: /run/wirepost/worker/nkey.seed", "NATS_NKEY: /run/wirepost/workers/nkey.seed"},
		{"files", "./secrets/nkeys:/etc/nats/nkeys:ro", "./secrets/nkeys.conf:/etc/nats/nkeys/nkeys.conf:ro"},
		{"way in", "gateway: 10.89.76.1", "gateway: 10.89.76.2"},
		{"way in", "wirepost/inner.conf", "wirepost/single.conf"},
		{"way in", "local/outers.conf:ro", "local/inners.conf:ro"},
		{"store", "--keyFile /tmp/key", ""},
		{"store", "MONGO_INITDB_ROOT_PASSWORD: $", "MONGO_INITDB_PASSWORD: $"},
		{"store", "wirepost:${MONGODB_PASSWORD:?run k8s/compose/setup.sh first}@", ""},
		{"edges", "10.89.77.12", "10.89.77.13"},
		{"edges", "10.89.77.0/24", "10.89.78.0/24"},
		{"edges", `LISTEN: ":8080"`, `LISTEN: ":8081"`},
		{"grace", "stop_grace_period: 100s", "stop_grace_period: 90s"},
		{"grace", "{soft: 20512, hard: 20512}", "{soft: 65536, hard: 65536}"},
		{"health", "[CMD, /worker, -ready]", "[CMD, wget, \"http://127.0.0.1:9091/readyz\"]"},
		{"health", "mongodb: {condition: service_healthy}", "mongodb: {condition: service_started}"},
	} {
		name := fmt.Sprintf("%s/%s", b.check, b.new)
		text := composeText(t)
		if !strings.Contains(text, b.old) {
			t.Errorf("compose.yaml has no %q", b.old)
			continue
		}
		p, err := compose(strings.Replace(text, b.old, b.new, 1), secrets)
		noticed[b.check] = true
		if b.check == "load" {
			if err == nil {
				t.Errorf("%s: it is read", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(composeChecks[b.check](t, p)) == 0 {
			t.Errorf("%s: nobody noticed", name)
		}
	}
	for check := range composeChecks {
		if !noticed[check] {
			t.Errorf("nothing is broken for the check %q", check)
		}
	}
}
