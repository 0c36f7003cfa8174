package worker

import (
	"strings"
	"time"

	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/worker/mongostore"
)

// Config is all that an operator sets. README.md has the same as a table, which a test
// keeps true. An empty variable counts as one that is not set.
type Config struct {
	// Name of this worker: 1 to 64 letters, digits, _ or -, different from that of every
	// worker that runs at the same time. Empty: the host's name and a random suffix.
	// A name that stays over a restart (a pod's) gives a worker that crashed its lanes
	// again at once, not after some seconds.
	Name string `env:"WORKER_NAME"`
	// AdminListen serves health, metrics and profiles. Never let the world reach it.
	AdminListen string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9091"`

	NATS   NATS
	Layout Layout
	Store  Store
	Work   Work
	Log    process.LogOptions
	Traces Traces
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
	// CAFile is a PEM file that signs the servers' certificates. Empty: the system's.
	CAFile string `env:"NATS_CA"`
}

// Layout is what Ensure creates in JetStream. Lanes and Shards must be the same at every
// edge and worker of a system.
type Layout struct {
	// Lanes of the uplink. More let more workers share the work; each is a stream.
	Lanes int `env:"LANES" envDefault:"8"`
	// Shards of the downlink. One carries some 50,000 frames/s; each is a stream.
	Shards int `env:"SHARDS" envDefault:"4"`
	// Replicas of each stream: 1, 3 or 5, of as many servers at least. 1 loses what is
	// under way when its server's disk is lost (never an acknowledged message); 3 costs
	// twice the network and disk again.
	Replicas int `env:"REPLICAS" envDefault:"1"`
	// UplinkMaxBytes is what waits for workers at most, in bytes over all lanes. Beyond
	// it senders are told to try again. Costs disk.
	UplinkMaxBytes int64 `env:"UPLINK_MAX_BYTES" envDefault:"1073741824"`
	// DownlinkMaxAge is how long a frame stays for devices that reconnect and resume.
	// Away for longer costs a sync from the store. More costs disk and memory of NATS.
	DownlinkMaxAge time.Duration `env:"DOWNLINK_MAX_AGE" envDefault:"10m"`
	// DownlinkMaxBytes is what stays at most, in bytes over all shards. NATS needs some
	// 2.5 times as much memory.
	DownlinkMaxBytes int64 `env:"DOWNLINK_MAX_BYTES" envDefault:"1073741824"`
}

// Store says where messages are kept.
type Store struct {
	// URI of MongoDB (mongodb:// or mongodb+srv://), with credentials and options. A
	// replica set; there is no default.
	URI process.Secret `env:"MONGODB_URI"`
	// Database that holds the collections.
	Database string `env:"MONGODB_DATABASE" envDefault:"wirepost"`
}

// Work says how messages are worked.
type Work struct {
	// BodyLimit is the largest msgBody, in bytes. A larger one is refused for good. It
	// must fit into the edges' MAX_FRAME with some room for the other fields.
	BodyLimit int `env:"BODY_LIMIT" envDefault:"65536"`
	// Batch is how many messages of a lane are stored at once at most. More is cheaper a
	// message under load, and delays the first of them.
	Batch int `env:"BATCH" envDefault:"256"`
}

// Traces says whether spans are exported by OTLP. They are not, and cost nothing, unless one
// of the first three is set. The SDK of OpenTelemetry reads its other standard variables
// (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, …) itself.
type Traces struct {
	// Exporter: otlp or none. Empty: otlp when one of the endpoints is set.
	Exporter string `env:"OTEL_TRACES_EXPORTER"`
	// Endpoint of the collector, such as http://collector:4318; /v1/traces is added.
	Endpoint process.Secret `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	// TracesEndpoint is the same for traces alone, and taken as it is.
	TracesEndpoint process.Secret `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	// Protocol is http/protobuf, the only one that is spoken.
	Protocol string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" envDefault:"http/protobuf"`
	// Disabled turns traces off whatever else is set.
	Disabled bool `env:"OTEL_SDK_DISABLED" envDefault:"false"`
	// Service is the name of the service in the spans.
	Service string `env:"OTEL_SERVICE_NAME" envDefault:"wirepost-worker"`
}

// On reports whether spans are exported.
func (t Traces) On() bool {
	return !t.Disabled && (t.Exporter == "otlp" || t.Exporter == "" && (t.Endpoint != "" || t.TracesEndpoint != ""))
}

func (t Traces) check(c *process.Checks) {
	if t.Exporter != "" && t.Exporter != "otlp" && t.Exporter != "none" {
		c.Add("OTEL_TRACES_EXPORTER", "must be otlp or none, is %q", t.Exporter)
	}
	if t.Endpoint != "" {
		c.URLs("OTEL_EXPORTER_OTLP_ENDPOINT", t.Endpoint.Reveal(), "http://collector:4318", "http", "https")
	}
	if t.TracesEndpoint != "" {
		c.URLs("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", t.TracesEndpoint.Reveal(), "http://collector:4318/v1/traces", "http", "https")
	}
	if t.Protocol != "http/protobuf" {
		c.Add("OTEL_EXPORTER_OTLP_PROTOCOL", "must be http/protobuf, is %q", t.Protocol)
	}
}

// Limits of the configuration.
const (
	maxLanes     = 256
	maxShards    = 256
	maxBody      = 1<<20 - 64<<10 // a frame of it fits into a NATS message of 1 MiB
	leastBytes   = 1 << 20        // of a lane or a shard
	mostBytes    = 1 << 50
	maxBatch     = 512 // what the server hands a lane unacknowledged at most (streams.Layout.AckPending)
	maxDBName    = 63  // bytes, MongoDB's limit
	notInDBNames = "/\\. \"$*<>:|?"
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
	c.Name("WORKER_NAME", cfg.Name)
	c.Address("ADMIN_LISTEN", cfg.AdminListen)
	c.URLs("NATS_URL", cfg.NATS.URL.Reveal(), "nats://nats:4222", "nats", "tls", "ws", "wss")
	c.File("NATS_CREDS", cfg.NATS.CredsFile)
	c.File("NATS_NKEY", cfg.NATS.NKeyFile)
	if cfg.NATS.CredsFile != "" && cfg.NATS.NKeyFile != "" {
		c.Add("NATS_NKEY", "must not be set together with NATS_CREDS")
	}
	c.File("NATS_CA", cfg.NATS.CAFile)
	c.Between("LANES", int64(cfg.Layout.Lanes), 1, maxLanes)
	c.Between("SHARDS", int64(cfg.Layout.Shards), 1, maxShards)
	if r := cfg.Layout.Replicas; r != 1 && r != 3 && r != 5 {
		c.Add("REPLICAS", "must be 1, 3 or 5, is %d", r)
	}
	c.Between("UPLINK_MAX_BYTES", cfg.Layout.UplinkMaxBytes, int64(cfg.Layout.Lanes)*leastBytes, mostBytes)
	c.Lasts("DOWNLINK_MAX_AGE", cfg.Layout.DownlinkMaxAge, time.Second, 30*24*time.Hour)
	c.Between("DOWNLINK_MAX_BYTES", cfg.Layout.DownlinkMaxBytes, int64(cfg.Layout.Shards)*leastBytes, mostBytes)
	switch uri := cfg.Store.URI.Reveal(); {
	case uri == "":
		c.Add("MONGODB_URI", "is not set: it says where messages are stored, such as mongodb://mongo:27017/?replicaSet=rs0")
	case !strings.HasPrefix(uri, "mongodb+srv://") && !mongostore.ValidURI(uri): // an srv name is looked up later
		c.Add("MONGODB_URI", "must be a URI such as mongodb://mongo:27017/?replicaSet=rs0")
	}
	if name := cfg.Store.Database; len(name) > maxDBName || strings.ContainsAny(name, notInDBNames) {
		c.Add("MONGODB_DATABASE", "must be the name of a database of at most %d bytes, is %q", maxDBName, name)
	}
	c.Between("BODY_LIMIT", int64(cfg.Work.BodyLimit), 1, maxBody)
	c.Between("BATCH", int64(cfg.Work.Batch), 1, maxBatch)
	cfg.Traces.check(c)
}
