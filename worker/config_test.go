package worker

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
)

const goodURI = "mongodb://u:hunter2@mongo:27017/?replicaSet=rs0"

func environ(change map[string]string) map[string]string {
	e := map[string]string{"MONGODB_URI": goodURI}
	maps.Copy(e, change)
	return e
}

func TestDefaults(t *testing.T) {
	cfg, err := LoadConfig(environ(map[string]string{"LANES": ""}))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Layout.Lanes != 8 || cfg.Layout.Replicas != 1 || cfg.Layout.DownlinkMaxAge != 10*time.Minute || cfg.Layout.DownlinkMaxBytes != 1<<30 ||
		cfg.Store.Database != "wirepost" || cfg.Store.URI.Reveal() != goodURI || cfg.Work.BodyLimit != 64<<10 || cfg.Log.Level != slog.LevelInfo {
		t.Errorf("%+v", cfg)
	}
	again, err := LoadConfig(environ(nil))
	if err != nil || cfg.Name == "" || cfg.Name == again.Name {
		t.Errorf("names %q and %q, %v: a default name is new at every start", cfg.Name, again.Name, err)
	}
}

func TestWrongValues(t *testing.T) {
	for _, c := range []struct{ variable, value, problem string }{
		{"WORKER_NAME", "a.b", "must be 1 to 64 letters"},
		{"ADMIN_LISTEN", "9091", "must be an address"},
		{"NATS_URL", "nats", "must be a URL"},
		{"NATS_CREDS", "/does/not/exist", "must be a readable file"},
		{"NATS_NKEY", "/does/not/exist", "must be a readable file"},
		{"NATS_CA", "/does/not/exist", "must be a readable file"},
		{"LANES", "0", "must be from 1 to 256, is 0"},
		{"SHARDS", "4.5", "must be a whole number"},
		{"REPLICAS", "2", "must be 1, 3 or 5, is 2"},
		{"UPLINK_MAX_BYTES", "1GiB", "must be a whole number"},
		{"UPLINK_MAX_BYTES", "-1", "must be from 8388608"},
		{"DOWNLINK_MAX_AGE", "10", "must be a duration"},
		{"DOWNLINK_MAX_AGE", "1ms", "must be from 1s"},
		{"DOWNLINK_MAX_BYTES", "0", "must be from 4194304"},
		{"MONGODB_URI", "u:hunter2@mongo", "must be a URI"},
		{"MONGODB_URI", "mongodb://u:hunter2@mongo:27017:1/", "must be a URI"},
		{"MONGODB_DATABASE", "a/b", "must be the name of a database"},
		{"BODY_LIMIT", "0", "must be from 1 to"},
		{"BATCH", "100000", "must be from 1 to 512"},
		{"OTEL_TRACES_EXPORTER", "zipkin", `must be otlp or none, is "zipkin"`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be a URL such as http://collector:4318"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector", "must be a URL such as http://collector:4318/v1/traces"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", `must be http/protobuf, is "grpc"`},
		{"OTEL_SDK_DISABLED", "perhaps", `must be true or false, is "perhaps"`},
		{"LOG_FORMAT", "xml", `must be auto, text or json, is "xml"`},
		{"LOG_LEVEL", "loud", `must be debug, info, warn or error, is "loud"`},
	} {
		_, err := LoadConfig(environ(map[string]string{c.variable: c.value}))
		if err == nil || !strings.HasPrefix(err.Error(), c.variable+": ") || !strings.Contains(err.Error(), c.problem) ||
			strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s: error %q, want %q", c.variable, c.value, err, c.problem)
		}
	}
	if _, err := LoadConfig(map[string]string{}); err == nil || !strings.HasPrefix(err.Error(), "MONGODB_URI: is not set") {
		t.Errorf("no store: %v", err)
	}
	if _, err := LoadConfig(environ(map[string]string{"NATS_CREDS": "config.go", "NATS_NKEY": "config.go"})); err == nil || !strings.HasPrefix(err.Error(), "NATS_NKEY: must not be set together") {
		t.Errorf("two kinds of credentials: %v", err)
	}
}

func TestConfigShowsNoSecret(t *testing.T) {
	cfg, err := LoadConfig(environ(nil))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(s, "hunter2") {
		t.Errorf("%s", s)
	}
}

// TestReadme: the table in README.md names each variable with its default, and no other.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "<!-- config:worker -->")
	table, _, ok2 := strings.Cut(table, "<!-- /config:worker -->")
	if !ok || !ok2 {
		t.Fatal("README.md has no table between <!-- config:worker --> and <!-- /config:worker -->")
	}
	rows := map[string]string{} // variable → default
	for line := range strings.Lines(table) {
		if cell := strings.Split(line, "|"); len(cell) == 5 && strings.HasPrefix(cell[1], " `") {
			name := strings.Trim(cell[1], " `")
			if _, twice := rows[name]; twice || strings.TrimSpace(cell[3]) == "" {
				t.Errorf("%s is there twice, or says nothing", name)
			}
			rows[name] = strings.TrimSpace(cell[2])
		}
	}
	params, err := env.GetFieldParams(&Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range params {
		if p.Ignored {
			continue
		}
		def, ok := rows[p.Key]
		switch {
		case !ok:
			t.Errorf("README.md does not name %s", p.Key)
		case p.HasDefaultValue && def != "`"+p.DefaultValue+"`":
			t.Errorf("README.md: the default of %s is %s, want `%s`", p.Key, def, p.DefaultValue)
		case !p.HasDefaultValue && (def == "" || strings.HasPrefix(def, "`")):
			t.Errorf("README.md: %s has no default, not %q", p.Key, def)
		}
		delete(rows, p.Key)
	}
	for name := range rows {
		t.Errorf("README.md: there is no variable %s", name)
	}
}

// Spans are exported when somebody says where to, and nobody says no.
func TestTracesOn(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		on  bool
		set map[string]string
	}{
		{false, nil},
		{false, map[string]string{endpoint: "", "OTEL_SERVICE_NAME": "x"}},
		{true, map[string]string{endpoint: "http://collector:4318"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/traces"}},
		{true, map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}},
		{false, map[string]string{endpoint: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}},
		{false, map[string]string{endpoint: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}},
	} {
		cfg, err := LoadConfig(environ(c.set))
		if err != nil || cfg.Traces.On() != c.on {
			t.Errorf("%v: on is %v (%v)", c.set, cfg.Traces.On(), err)
		}
	}
}
