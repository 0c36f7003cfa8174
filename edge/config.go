package edge

import (
	"os"
	"strings"
	"time"

	"github.com/wirepost/wirepost/edge/attempts"
	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/shared/process"
)

// Config is all that an operator sets. README.md has the same as a table, which a test
// keeps true. An empty variable counts as one that is not set.
type Config struct {
	// Name of this edge: 1 to 64 letters, digits, _ or -, different from that of every
	// edge that runs at the same time. Empty: the host's name and a random suffix, so
	// that a process that starts again is told from the one before.
	Name string `env:"EDGE_NAME"`
	// Listen is where clients connect, without TLS, which ends at the load balancer.
	Listen string `env:"LISTEN" envDefault:":8080"`
	// AdminListen serves health, metrics and profiles. Never let the world reach it.
	AdminListen string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9090"`
	// Origins are the web origins that may connect, separated by commas, exact but for
	// ":*" as the port. Empty: browsers are refused; programs send no Origin and are not.
	Origins []string `env:"ALLOWED_ORIGINS" envSeparator:","`
	// PathPrefix is the path of the WebSocket; a user id may follow it.
	PathPrefix string `env:"PATH_PREFIX" envDefault:"/ws"`

	Proxies Proxies
	NATS    NATS
	Layout  Layout
	Token   Token
	Sockets Sockets
	Log     process.LogOptions
}

// Proxies says what stands between clients and this edge, and whom it therefore believes.
type Proxies struct {
	// Trusted are the networks and addresses of load balancers, separated by commas. What
	// they say about their client (X-Forwarded-For, X-Forwarded-Proto, a PROXY header) is
	// believed. Name nobody else's: who is in there can be anybody. Empty: nobody.
	Trusted []string `env:"TRUSTED_PROXIES" envSeparator:","`
	// ProxyListen is where Trusted connect, and nobody else, with a header of the PROXY protocol,
	// version 2, before the request. Empty: nowhere.
	ProxyListen string `env:"PROXY_LISTEN"`
	// AttemptRate is how many connections a second a client address, or an IPv6 network of
	// 64 bits, may try for ever, ten seconds' worth at once. Too low locks out those who
	// share an address. Zero: no bound.
	AttemptRate int `env:"ATTEMPT_RATE" envDefault:"0"`
}

// NATS says how to connect to NATS.
type NATS struct {
	// URL of one or more servers, separated by commas.
	URL process.Secret `env:"NATS_URL" envDefault:"nats://127.0.0.1:4222"`
	// CredsFile is a .creds file. Empty: what NKeyFile or the URL says, if anything.
	CredsFile string `env:"NATS_CREDS"`
	// NKeyFile is a file with an nkey seed, which is read once, at start. Empty: what
	// CredsFile or the URL says, if anything.
	NKeyFile string `env:"NATS_NKEY"`
	// ReplayNKeyFile is the same for the connections that read what a client missed: another
	// user, who may do nothing else. Empty: NKeyFile.
	ReplayNKeyFile string `env:"NATS_REPLAY_NKEY"`
	// CAFile is a PEM file that signs the servers' certificates. Empty: the system's.
	CAFile string `env:"NATS_CA"`
}

// Layout says what the downlink and the uplink look like. Lanes and Shards must be the
// same at every edge and worker of a system.
type Layout struct {
	// Lanes of the uplink. More let more workers share the work; each is a stream.
	Lanes int `env:"LANES" envDefault:"8"`
	// Shards of the downlink. One carries some 50,000 frames/s; each is a stream.
	Shards int `env:"SHARDS" envDefault:"4"`
	// Sweep is how often an edge proves that none of its users missed a frame, and moves
	// the resume tokens of those who are quiet. It must be well below the workers'
	// DOWNLINK_MAX_AGE, or quiet users cannot resume. More often costs NATS a read a user.
	Sweep time.Duration `env:"SWEEP_INTERVAL" envDefault:"1m"`
}

// Token says which tokens are accepted. At least one kind of key is needed; there is
// no default.
type Token struct {
	// Secret of HS256 tokens, at least 32 bytes. Empty: they are refused.
	Secret process.Secret `env:"JWT_HS256_SECRET"`
	// PublicKey holds one or more PEM blocks: RSA is RS256, P-256 is ES256, Ed25519 is
	// EdDSA. Empty: none.
	PublicKey string `env:"JWT_PUBLIC_KEY"`
	// PublicKeyFile names a file with the same. Read once, at start.
	PublicKeyFile string `env:"JWT_PUBLIC_KEY_FILE"`
	// JWKSURL is where keys are fetched every 5 minutes. Empty: none are.
	JWKSURL process.Secret `env:"JWT_JWKS_URL"`
	// Issuer that a token must have (iss). Empty: not checked.
	Issuer string `env:"JWT_ISSUER"`
	// Audience that a token must have among its own (aud). Empty: not checked.
	Audience string `env:"JWT_AUDIENCE"`

	// PublicKeys is what LoadConfig made of PublicKey and PublicKeyFile.
	PublicKeys []auth.PublicKey `env:"-"`
}

// Sockets says how connections are treated.
type Sockets struct {
	// Heartbeat is how often a client sends one; a socket is cut after 2.5 of them in
	// silence. Longer saves CPU, is cut by proxies (nginx: 60 s), and finds dead peers later.
	Heartbeat time.Duration `env:"HEARTBEAT" envDefault:"25s"`
	// MaxFrame is the largest message from a client, in bytes, all fragments together.
	// It must fit into a NATS message (1 MiB by default). A connection can hold this much
	// memory while a message is incomplete.
	MaxFrame int `env:"MAX_FRAME" envDefault:"131072"`
	// FrameRate is how many WebSocket frames a second a connection may send for ever: fifty
	// are more than people and their devices send, and cost the edge half a thousandth of a
	// core. Ten seconds' worth may come at once, such as an outbox after a reconnect. What is
	// beyond waits unread. Higher lets one client take more of the system. Zero: no bound.
	FrameRate int `env:"FRAME_RATE" envDefault:"50"`
	// ByteRate is the same for bytes: by default as many frames of 5 KiB, and at once 256
	// messages of 10 KiB, the window of the Go client. A message of MaxFrame must fit into 10
	// seconds of it.
	ByteRate int `env:"BYTE_RATE" envDefault:"262144"`
	// DrainRate is how many sockets are closed a second when the edge stops. The grace
	// period must be longer than DrainNotice + sockets ÷ DrainRate + 50 s. Faster means
	// more logins at once at the other edges.
	DrainRate int `env:"DRAIN_RATE" envDefault:"500"`
	// DrainNotice is the time from readiness off to the drain, which tells clients and
	// begins to close: as long as load balancers need to notice. Zero: none.
	DrainNotice time.Duration `env:"DRAIN_NOTICE" envDefault:"5s"`
}

// Limits of the configuration.
const (
	maxLanes  = 256
	maxShards = 256
	minFrame  = 1 << 10
	maxFrame  = 1<<20 - 16<<10 // a NATS message of 1 MiB, its headers aside
)

// LoadConfig reads the configuration from environ, or from the process's environment
// when environ is nil. The error joins a process.ConfigError for each wrong variable.
func LoadConfig(environ map[string]string) (Config, error) {
	return process.LoadEnv(environ, (*Config).check)
}

// check gives the process a name if it has none, and records what is wrong.
func (cfg *Config) check(c *process.Checks) {
	if cfg.Name == "" {
		cfg.Name = process.NewName()
	}
	c.Name("EDGE_NAME", cfg.Name)
	c.Address("LISTEN", cfg.Listen)
	c.Address("ADMIN_LISTEN", cfg.AdminListen)
	if _, err := handshake.ParseOrigins(cfg.Origins); err != nil {
		c.Add("ALLOWED_ORIGINS", "%v", err)
	}
	if p := cfg.PathPrefix; !strings.HasPrefix(p, "/") || len(p) < 2 || strings.HasSuffix(p, "/") || strings.ContainsAny(p, "?#% ") {
		c.Add("PATH_PREFIX", "must be a path such as /ws, without a slash at its end, is %q", p)
	}
	cfg.Proxies.check(c)
	c.URLs("NATS_URL", cfg.NATS.URL.Reveal(), "nats://nats:4222", "nats", "tls", "ws", "wss")
	c.File("NATS_CREDS", cfg.NATS.CredsFile)
	c.File("NATS_NKEY", cfg.NATS.NKeyFile)
	c.File("NATS_REPLAY_NKEY", cfg.NATS.ReplayNKeyFile)
	if cfg.NATS.CredsFile != "" && cfg.NATS.NKeyFile != "" {
		c.Add("NATS_NKEY", "must not be set together with NATS_CREDS")
	}
	if cfg.NATS.ReplayNKeyFile != "" && cfg.NATS.NKeyFile == "" {
		c.Add("NATS_REPLAY_NKEY", "is set and NATS_NKEY is not")
	}
	c.File("NATS_CA", cfg.NATS.CAFile)
	c.Between("LANES", int64(cfg.Layout.Lanes), 1, maxLanes)
	c.Between("SHARDS", int64(cfg.Layout.Shards), 1, maxShards)
	c.Lasts("SWEEP_INTERVAL", cfg.Layout.Sweep, time.Second, time.Hour)
	c.Lasts("HEARTBEAT", cfg.Sockets.Heartbeat, 100*time.Millisecond, time.Hour)
	c.Between("MAX_FRAME", int64(cfg.Sockets.MaxFrame), minFrame, maxFrame)
	c.Between("FRAME_RATE", int64(cfg.Sockets.FrameRate), 0, socket.MaxFrameRate)
	c.Between("BYTE_RATE", int64(cfg.Sockets.ByteRate), 0, socket.MaxByteRate)
	if r := cfg.Sockets.ByteRate; r > 0 && r < cfg.Sockets.MaxFrame/10 {
		c.Add("BYTE_RATE", "must be at least a tenth of MAX_FRAME, or 0 for no bound, is %d", r)
	}
	c.Between("DRAIN_RATE", int64(cfg.Sockets.DrainRate), 1, 1_000_000)
	c.Lasts("DRAIN_NOTICE", cfg.Sockets.DrainNotice, 0, 10*time.Minute)
	cfg.Token.check(c)
}

// check: without a trusted proxy every client has the load balancer's address, and a bound
// by address would lock all of them out together.
func (p *Proxies) check(c *process.Checks) {
	trusted, err := handshake.ParseProxies(p.Trusted)
	if err != nil {
		c.Add("TRUSTED_PROXIES", "%v", err)
		return
	}
	if p.ProxyListen != "" {
		c.Address("PROXY_LISTEN", p.ProxyListen)
	}
	if p.ProxyListen != "" && trusted.None() {
		c.Add("PROXY_LISTEN", "is set and TRUSTED_PROXIES is not: nobody may connect there")
	}
	c.Between("ATTEMPT_RATE", int64(p.AttemptRate), 0, attempts.MaxRate)
	if p.AttemptRate > 0 && trusted.None() {
		c.Add("ATTEMPT_RATE", "is set and TRUSTED_PROXIES is not: every client would have the address of the load balancer")
	}
}

func (t *Token) check(c *process.Checks) {
	if t.Secret == "" && t.PublicKey == "" && t.PublicKeyFile == "" && t.JWKSURL == "" {
		c.Add("JWT_HS256_SECRET", "is not set, nor JWT_PUBLIC_KEY, JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL: one of them is needed to verify tokens")
	}
	if err := auth.CheckSecret([]byte(t.Secret)); t.Secret != "" && err != nil {
		c.Add("JWT_HS256_SECRET", "%v", err)
	}
	if t.JWKSURL != "" {
		if err := auth.CheckJWKSURL(t.JWKSURL.Reveal()); err != nil {
			c.Add("JWT_JWKS_URL", "must be a URL such as https://id.example.com/keys.json")
		}
	}
	if t.PublicKey != "" {
		t.addKeys(c, "JWT_PUBLIC_KEY", []byte(t.PublicKey))
	}
	if t.PublicKeyFile != "" {
		text, err := os.ReadFile(t.PublicKeyFile)
		if err != nil {
			c.Add("JWT_PUBLIC_KEY_FILE", "must be a readable file: %v", err)
			return
		}
		t.addKeys(c, "JWT_PUBLIC_KEY_FILE", text)
	}
}

func (t *Token) addKeys(c *process.Checks, variable string, text []byte) {
	keys, err := auth.ParsePublicKeys(text)
	if err != nil {
		c.Add(variable, "%v", err)
	}
	t.PublicKeys = append(t.PublicKeys, keys...)
}
