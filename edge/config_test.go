package edge

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/wirepost/wirepost/shared/process"
)

const goodSecret = "0123456789abcdef0123456789abcdef"

func environ(change map[string]string) map[string]string {
	e := map[string]string{"JWT_HS256_SECRET": goodSecret}
	maps.Copy(e, change)
	return e
}

func publicPEM(t *testing.T) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestDefaults(t *testing.T) {
	cfg, err := LoadConfig(environ(map[string]string{"LISTEN": ""}))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != ":8080" || cfg.Sockets.Heartbeat != 25*time.Second || cfg.Sockets.MaxFrame != 128<<10 ||
		cfg.Sockets.FrameRate != 50 || cfg.Sockets.ByteRate != 256<<10 ||
		cfg.NATS.URL != "nats://127.0.0.1:4222" || cfg.Log.Level != slog.LevelInfo || cfg.Origins != nil {
		t.Errorf("%+v", cfg)
	}
	again, err := LoadConfig(environ(nil))
	if err != nil || cfg.Name == "" || cfg.Name == again.Name {
		t.Errorf("names %q and %q, %v: a default name is new at every start", cfg.Name, again.Name, err)
	}
}

func TestValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte(publicPEM(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(map[string]string{
		"EDGE_NAME": "e-1", "ALLOWED_ORIGINS": "https://a.example,http://localhost:*", "LOG_LEVEL": "debug", "LOG_FORMAT": "json",
		"JWT_PUBLIC_KEY": publicPEM(t), "JWT_PUBLIC_KEY_FILE": file, "DRAIN_NOTICE": "0s",
		"FRAME_RATE": "0", "BYTE_RATE": "0", "TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1", "PROXY_LISTEN": ":8443", "ATTEMPT_RATE": "20",
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != "e-1" || len(cfg.Origins) != 2 || cfg.Log != (process.LogOptions{Format: process.LogJSON, Level: slog.LevelDebug}) ||
		len(cfg.Token.PublicKeys) != 2 || cfg.Sockets.DrainNotice != 0 || len(cfg.Proxies.Trusted) != 2 || cfg.Proxies.AttemptRate != 20 {
		t.Errorf("%+v", cfg)
	}
}

func TestWrongValues(t *testing.T) {
	for _, c := range []struct{ variable, value, problem string }{
		{"EDGE_NAME", "a.b", "must be 1 to 64 letters"},
		{"EDGE_NAME", strings.Repeat("x", 65), "must be 1 to 64 letters"},
		{"LISTEN", "8080", "must be an address"},
		{"LISTEN", "localhost:http", "must be an address"},
		{"ADMIN_LISTEN", ":70000", "must be an address"},
		{"ALLOWED_ORIGINS", "*", "is no origin"},
		{"TRUSTED_PROXIES", "10.0.0.0/8,proxy.example.com", `"proxy.example.com" is no network`},
		{"TRUSTED_PROXIES", "10.0.0.0/33", "is no network"},
		{"TRUSTED_PROXIES", "0.0.0.0/0", "would believe everybody"},
		{"PROXY_LISTEN", "127.0.0.1:8443", "is set and TRUSTED_PROXIES is not"},
		{"ATTEMPT_RATE", "-1", "must be from 0 to 1000000"},
		{"ATTEMPT_RATE", "5", "is set and TRUSTED_PROXIES is not"},
		{"PATH_PREFIX", "ws", "must be a path"},
		{"PATH_PREFIX", "/ws/", "must be a path"},
		{"NATS_URL", "user:hunter2@nats:4222", "must be a URL"},
		{"NATS_URL", "nats://a:4222,http://user:hunter2@b", "must be a URL"},
		{"NATS_CREDS", "/does/not/exist", "must be a readable file"},
		{"NATS_NKEY", "/does/not/exist", "must be a readable file"},
		{"NATS_REPLAY_NKEY", "config.go", "is set and NATS_NKEY is not"},
		{"NATS_CA", "/does/not/exist", "must be a readable file"},
		{"LANES", "0", "must be from 1 to 256, is 0"},
		{"LANES", "many", `must be a whole number, is "many"`},
		{"SHARDS", "-1", "must be from 1 to 256"},
		{"JWT_HS256_SECRET", "hunter2", "shorter than 32 bytes"},
		{"JWT_PUBLIC_KEY", "hunter2", "no PEM block"},
		{"JWT_PUBLIC_KEY_FILE", "/does/not/exist", "must be a readable file"},
		{"JWT_PUBLIC_KEY_FILE", "config.go", "no PEM block"},
		{"JWT_JWKS_URL", "id.example/hunter2", "must be a URL"},
		{"SWEEP_INTERVAL", "1ms", "must be from 1s"},
		{"HEARTBEAT", "25", `must be a duration such as 500ms, 25s or 10m, is "25"`},
		{"HEARTBEAT", "1ms", "must be from 100ms"},
		{"MAX_FRAME", "100", "must be from 1024"},
		{"MAX_FRAME", "99999999999", "must be a whole number"},
		{"FRAME_RATE", "-1", "must be from 0 to 100000"},
		{"BYTE_RATE", "99999999", "must be from 0 to 67108864"},
		{"BYTE_RATE", "1000", "must be at least a tenth of MAX_FRAME"},
		{"DRAIN_RATE", "0", "must be from 1"},
		{"DRAIN_NOTICE", "-1s", "must be from 0s"},
		{"LOG_FORMAT", "xml", `must be auto, text or json, is "xml"`},
		{"LOG_LEVEL", "loud", `must be debug, info, warn or error, is "loud"`},
	} {
		_, err := LoadConfig(environ(map[string]string{c.variable: c.value}))
		if err == nil || !strings.HasPrefix(err.Error(), c.variable+": ") || !strings.Contains(err.Error(), c.problem) ||
			strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s: error %q, want %q", c.variable, c.value, err, c.problem)
		}
	}
	if _, err := LoadConfig(map[string]string{}); err == nil || !strings.HasPrefix(err.Error(), "JWT_HS256_SECRET: is not set") {
		t.Errorf("no key at all: %v", err)
	}
	if _, err := LoadConfig(environ(map[string]string{"TRUSTED_PROXIES": "10.0.0.0/8", "PROXY_LISTEN": "8443"})); err == nil || !strings.HasPrefix(err.Error(), "PROXY_LISTEN: must be an address") {
		t.Errorf("no address to listen at: %v", err)
	}
	if _, err := LoadConfig(environ(map[string]string{"NATS_CREDS": "config.go", "NATS_NKEY": "config.go"})); err == nil || !strings.HasPrefix(err.Error(), "NATS_NKEY: must not be set together") {
		t.Errorf("two kinds of credentials: %v", err)
	}
	if _, err := LoadConfig(environ(map[string]string{"LANES": "x", "SHARDS": "y"})); strings.Count(fmt.Sprint(err), "\n") != 1 {
		t.Errorf("two wrong values are two lines: %v", err)
	}
}

func TestConfigShowsNoSecret(t *testing.T) {
	cfg, err := LoadConfig(environ(map[string]string{"NATS_URL": "nats://u:hunter2@nats:4222", "JWT_JWKS_URL": "https://u:hunter2@id.example/"}))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(s, "hunter2") || strings.Contains(s, goodSecret) {
		t.Errorf("%s", s)
	}
}

// TestReadme: the table in README.md names each variable with its default, and no other.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "<!-- config:edge -->")
	table, _, ok2 := strings.Cut(table, "<!-- /config:edge -->")
	if !ok || !ok2 {
		t.Fatal("README.md has no table between <!-- config:edge --> and <!-- /config:edge -->")
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
