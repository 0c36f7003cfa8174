package manifests

import (
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/worker"
)

func checkWalls(_ *testing.T, p *types.Project) (found problems) {
	for name, s := range p.Services {
		if got := slices.Sorted(maps.Keys(s.Networks)); !slices.Equal(got, walls[name]) {
			found.add("%s is in %q, want %q", name, got, walls[name])
		}
	}
	if len(p.Services) != len(walls) {
		found.add("%d services, want %d", len(p.Services), len(walls))
	}
	for name, n := range p.Networks {
		if n.Internal == (name == "way-in") {
			found.add("the network %s leads out of the machine: %v", name, !n.Internal)
		}
	}
	return found
}

func checkHardened(_ *testing.T, p *types.Project) (found problems) {
	for name, s := range p.Services {
		if !s.ReadOnly || s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			found.add("%s may write to its image, or has rights", name)
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 || s.Logging == nil || s.Logging.Options["max-size"] == "" {
			found.add("the memory, the processes or the log of %s have no limit", name)
		}
		if s.Restart != "unless-stopped" {
			found.add("%s is restarted %q", name, s.Restart)
		}
		if strings.HasPrefix(s.User, "0") || strings.HasPrefix(s.User, "root") {
			found.add("%s runs as root", name)
		}
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			found.add("%s runs whatever is newest: %s", name, s.Image)
		}
	}
	return found
}

// checkPublished: only what a person or a load balancer needs, and only on loopback.
func checkPublished(_ *testing.T, p *types.Project) (found problems) {
	for name, s := range p.Services {
		if n := len(s.Ports); n > 0 != slices.Contains([]string{"nginx", "prometheus", "grafana"}, name) {
			found.add("%s publishes %d ports", name, n)
		}
		for _, port := range s.Ports {
			if ip := net.ParseIP(port.HostIP); !ip.IsLoopback() {
				found.add("%s publishes %d to %q", name, port.Target, port.HostIP)
			}
		}
		if s.NetworkMode != "" {
			found.add("%s has the network mode %s", name, s.NetworkMode)
		}
	}
	return found
}

// values is the environment of a service. files replaces paths in it.
func values(s types.ServiceConfig, files func(path string) string) map[string]string {
	environ := map[string]string{}
	for name, value := range s.Environment {
		switch {
		case value == nil:
		case files != nil && strings.HasPrefix(*value, "/"):
			environ[name] = files(*value)
		default:
			environ[name] = *value
		}
	}
	return environ
}

// checkComposeEnvironment: the binaries start with what they are given, know each variable
// of it, and reach whom they are told to.
func checkComposeEnvironment(t *testing.T, p *types.Project) (found problems) {
	key := filepath.Join(t.TempDir(), "file") // that there is one is the business of checkMounts
	if err := os.WriteFile(key, []byte("anything"), 0o600); err != nil {
		t.Fatal(err)
	}
	there := func(string) string { return key }
	reach := func(from, variable, uri string) {
		u, err := url.Parse(uri)
		if err != nil {
			found.add("%s: %s is %q", from, variable, uri)
			return
		}
		to, ok := p.Services[u.Hostname()]
		if !ok || !slices.ContainsFunc(walls[from], func(n string) bool { _, is := to.Networks[n]; return is }) {
			found.add("%s: %s is %s, whom it cannot reach", from, variable, uri)
		}
	}
	for _, name := range []string{"edge-1", "edge-2", "worker"} {
		s := p.Services[name]
		environ, config := values(s, there), reflect.TypeFor[edge.Config]()
		if name == "worker" {
			config = reflect.TypeFor[worker.Config]()
		}
		for variable := range environ {
			if !slices.Contains(append(variables(config), ofGo...), variable) {
				found.add("%s does not know the variable %s", name, variable)
			}
		}
		reach(name, "NATS_URL", environ["NATS_URL"])
		if name == "worker" {
			reach(name, "MONGODB_URI", environ["MONGODB_URI"])
			if c, err := worker.LoadConfig(environ); err != nil || c.NATS.NKeyFile == "" {
				found.add("the worker does not start, or has no key: %v", err)
			}
			continue
		}
		if c, err := edge.LoadConfig(environ); err != nil || c.NATS.NKeyFile == "" || c.NATS.ReplayNKeyFile == "" {
			found.add("%s does not start, or has no keys: %v", name, err)
		}
	}
	if *p.Services["worker"].Deploy.Replicas < 2 {
		found.add("one worker that dies is all there is")
	}
	return found
}

// made is what setup.sh makes in the folder secrets (package setup of scripts/natssetup).
// Folders: a file that is mounted by itself stays the one from before when it is replaced.
var made = []string{"nkeys", "edge", "replay", "worker"}

// checkMounts: what is mounted is in the repository or made by setup.sh, and read-only;
// each file that a variable names is in a mount.
func checkMounts(_ *testing.T, p *types.Project) (found problems) {
	dir, err := filepath.Abs(composeDir)
	if err != nil {
		return problems{err.Error()}
	}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if !v.ReadOnly {
				found.add("%s may write to %s", name, v.Source)
			}
			if secret, ok := strings.CutPrefix(v.Source, filepath.Join(dir, "secrets")+"/"); ok {
				if !slices.Contains(made, secret) {
					found.add("%s mounts %s, which nobody makes", name, v.Source)
				}
			} else if _, err := os.Stat(v.Source); err != nil {
				found.add("%s mounts what is not there: %v", name, err)
			}
		}
		for variable, path := range values(s, nil) {
			if !strings.HasPrefix(path, "/run/") {
				continue
			}
			if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return filepath.Dir(path) == v.Target }) {
				found.add("%s: %s is %s, which is not mounted", name, variable, path)
			}
		}
	}
	return found
}

// checkEdgeAddresses: nginx has the edges' addresses, and each edge listens there.
func checkEdgeAddresses(_ *testing.T, p *types.Project) (found problems) {
	text, err := os.ReadFile(filepath.Join(composeDir, "nginx", "edges.conf"))
	if err != nil {
		return problems{err.Error()}
	}
	var at, want []string
	for _, m := range regexp.MustCompile(`(?m)^server (\S+) max_fails=0;$`).FindAllStringSubmatch(string(text), -1) {
		at = append(at, m[1])
	}
	for _, name := range []string{"edge-1", "edge-2"} {
		s := p.Services[name]
		n := s.Networks["edges"]
		if n == nil || s.Environment["LISTEN"] == nil {
			return problems{name + " has no address"}
		}
		want = append(want, n.Ipv4Address+*s.Environment["LISTEN"])
		_, subnet, err := net.ParseCIDR(p.Networks["edges"].Ipam.Config[0].Subnet)
		if err != nil || !subnet.Contains(net.ParseIP(n.Ipv4Address)) {
			found.add("%s is not in the network of the edges (%v)", n.Ipv4Address, err)
		}
	}
	if !slices.Equal(at, want) {
		found.add("nginx knows edges at %q, they are at %q", at, want)
	}
	return found
}

func checkComposeGrace(t *testing.T, p *types.Project) (found problems) {
	const rate, rest = 500, 50 * time.Second
	// An edge takes as many sockets as it has descriptors, but for 512 (edge/socket/config.go).
	sockets := time.Duration(p.Services["edge-1"].Ulimits["nofile"].Hard - 512)
	least := map[string]time.Duration{"worker": workerStop, "nats": 50 * time.Second, "mongodb": 30 * time.Second,
		"edge-1": 5*time.Second + sockets/rate*time.Second + rest, "edge-2": 5*time.Second + sockets/rate*time.Second + rest}
	for name, want := range least {
		got := p.Services[name].StopGracePeriod
		if got == nil || time.Duration(*got) < want {
			found.add("%s has %v to stop, and needs %v", name, got, want)
		}
	}
	return found
}

// checkWayIn: nginx believes whoever ends TLS on this machine, and nobody else.
func checkWayIn(_ *testing.T, p *types.Project) (found problems) {
	s, ipam := p.Services["nginx"], p.Networks["way-in"].Ipam.Config
	text, err := os.ReadFile(filepath.Join(composeDir, "nginx", "outers.conf"))
	if err != nil || len(ipam) != 1 {
		return problems{"nobody knows from where clients come to nginx"}
	}
	var believed []string
	for _, m := range regexp.MustCompile(`(?m)^set_real_ip_from (\S+);$`).FindAllStringSubmatch(string(text), -1) {
		believed = append(believed, m[1])
	}
	if !slices.Equal(believed, []string{ipam[0].Gateway}) {
		found.add("nginx believes %q, clients come from %s", believed, ipam[0].Gateway)
	}
	if !slices.Contains(s.Command, "/etc/nginx/wirepost/inner.conf") || !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
		return filepath.Base(v.Source) == "outers.conf" && v.Target == "/etc/nginx/wirepost/local/outers.conf"
	}) {
		found.add("nginx overwrites what the one before it says of the client")
	}
	return found
}

// checkStorePassword: MongoDB asks for a password, and workers have it.
func checkStorePassword(_ *testing.T, p *types.Project) (found problems) {
	m := p.Services["mongodb"]
	if !strings.Contains(strings.Join(m.Command, " "), " --keyFile /tmp/key ") || values(m, nil)["MONGO_INITDB_ROOT_PASSWORD"] == "" {
		found.add("MongoDB asks for no password")
	}
	uri, err := url.Parse(values(p.Services["worker"], nil)["MONGODB_URI"])
	if err != nil {
		return append(found, err.Error())
	}
	if password, _ := uri.User.Password(); uri.User.Username() != "wirepost" || password == "" || password != values(m, nil)["MONGODB_PASSWORD"] {
		found.add("workers sign in to MongoDB as %s", uri.User)
	}
	return found
}

// checkHealth: each service but Grafana's is asked, by a program that its image has;
// who needs another one waits until that one is well.
func checkHealth(_ *testing.T, p *types.Project) (found problems) {
	for name, s := range p.Services {
		if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 || s.HealthCheck.Test[0] != "CMD" {
			found.add("nobody asks how %s is, or by a shell", name)
			continue
		}
		if own, is := map[string]string{"edge-1": "/edge -ready", "edge-2": "/edge -ready", "worker": "/worker -ready"}[name]; is {
			if got := strings.Join(s.HealthCheck.Test[1:], " "); got != own {
				found.add("%s is asked by %q, and has nothing but %q", name, got, own)
			}
		}
	}
	for name, needs := range map[string][]string{"edge-1": {"nats", "worker"}, "worker": {"nats", "mongodb"}, "nginx": {"edge-1", "edge-2"}} {
		for _, other := range needs {
			if d, ok := p.Services[name].DependsOn[other]; !ok || d.Condition != types.ServiceConditionHealthy {
				found.add("%s does not wait for %s", name, other)
			}
		}
	}
	return found
}
