package manifests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/coreos/go-systemd/v22/unit"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/worker"
)

const systemdDir = "../systemd"

// service is a unit's [Service] section: each setting with its values, in order.
type service map[string][]string

func (s service) one(name string) string {
	if len(s[name]) != 1 {
		return ""
	}
	return s[name][0]
}

func readUnit(text []byte) (service, error) {
	options, err := unit.DeserializeOptions(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	s := service{}
	for _, o := range options {
		if o.Section == "Service" {
			s[o.Name] = append(s[o.Name], o.Value)
		}
	}
	return s, nil
}

func unitText(t *testing.T, binary string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(systemdDir, "wirepost-"+binary+".service"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// unitEnvironment is what the unit's process finds in its environment: its EnvironmentFile,
// and what the unit sets. Credentials exist, below a folder of the test.
func unitEnvironment(t *testing.T, s service, binary string) (map[string]string, problems) {
	var found problems
	environ, err := dotenv.Read(filepath.Join(systemdDir, binary+".env"))
	if err != nil {
		t.Fatal(err)
	}
	if s.one("EnvironmentFile") != "/etc/wirepost/"+binary+".env" {
		found.add("the environment is in %q", s["EnvironmentFile"])
	}
	dir := t.TempDir()
	for _, c := range s["LoadCredential"] {
		name, _, _ := strings.Cut(c, ":")
		if err := os.WriteFile(filepath.Join(dir, name), []byte("anything"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range s["Environment"] {
		for assignment := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(assignment, "=")
			environ[name] = strings.ReplaceAll(value, "%d", dir)
		}
	}
	return environ, found
}

// unitProblems: the binary starts with what the unit gives it, and has time to stop.
func unitProblems(t *testing.T, text []byte, binary string) (found problems) {
	s, err := readUnit(text)
	if err != nil {
		return problems{err.Error()}
	}
	environ, found := unitEnvironment(t, s, binary)
	var needs time.Duration
	config := reflect.TypeFor[worker.Config]()
	switch binary {
	case "edge":
		config = reflect.TypeFor[edge.Config]()
		c, err := edge.LoadConfig(environ)
		if err != nil || c.NATS.NKeyFile == "" || c.NATS.ReplayNKeyFile == "" || c.NATS.CAFile == "" {
			found.add("it does not start, or has no keys: %v", err)
			return found
		}
		const sockets = 100_000
		needs = c.Sockets.DrainNotice + sockets/time.Duration(c.Sockets.DrainRate)*time.Second + 50*time.Second
		if files, err := strconv.Atoi(s.one("LimitNOFILE")); err != nil || files < 2*sockets {
			found.add("%q descriptors for %d sockets", s.one("LimitNOFILE"), sockets)
		}
	case "worker":
		if c, err := worker.LoadConfig(environ); err != nil || c.NATS.NKeyFile == "" || c.NATS.CAFile == "" {
			found.add("it does not start, or has no keys: %v", err)
		}
		needs = workerStop
	}
	for variable := range environ {
		if !slices.Contains(append(variables(config), ofGo...), variable) {
			found.add("it does not know the variable %s", variable)
		}
	}
	if stop, err := strconv.Atoi(s.one("TimeoutStopSec")); err != nil || time.Duration(stop)*time.Second <= needs {
		found.add("it has %q s to stop, and needs %v", s.one("TimeoutStopSec"), needs)
	}
	for setting, want := range map[string]string{"ExecStart": "/usr/local/bin/wirepost-" + binary, "KillSignal": "SIGTERM", "Restart": "always",
		"RestartPreventExitStatus": strconv.Itoa(process.ExitConfig), "DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "",
		"RestrictAddressFamilies": "AF_INET AF_INET6", "ProcSubset": ""} {
		if got := s.one(setting); got != want {
			found.add("%s is %q, want %q", setting, got, want)
		}
	}
	if s.one("MemoryMax") == "" {
		found.add("its memory has no limit, and the edge keeps below none")
	}
	return found
}

func TestUnits(t *testing.T) {
	for _, binary := range []string{"edge", "worker"} {
		for _, problem := range unitProblems(t, unitText(t, binary), binary) {
			t.Errorf("%s: %s", binary, problem)
		}
	}
}

func TestUnitsBroken(t *testing.T) {
	text := string(unitText(t, "edge"))
	for old, new := range map[string]string{
		"TimeoutStopSec=300":                "TimeoutStopSec=250",
		"LimitNOFILE=262144":                "LimitNOFILE=65536",
		"NATS_REPLAY_NKEY=%d/replay.seed":   "NATS_REPLAY_NKEY=%d/other.seed",
		"NATS_CA=%d/ca.crt":                 "NATS_CA_FILE=%d/ca.crt",
		"LoadCredential=nkey.seed:":         "LoadCredential=nkey:",
		"/etc/wirepost/edge.env":            "/etc/wirepost/edge.conf",
		"RestartPreventExitStatus=78":       "RestartPreventExitStatus=2",
		"MemoryMax=2G\n":                    "",
		"=AF_INET AF_INET6":                 "=AF_INET AF_INET6 AF_UNIX",
		"ProtectProc=invisible\n":           "ProtectProc=invisible\nProcSubset=pid\n",
		"CapabilityBoundingSet=\n":          "CapabilityBoundingSet=CAP_NET_ADMIN\n",
		"ExecStart=/usr/local/bin/wirepost": "ExecStart=/usr/bin/wirepost",
	} {
		if !strings.Contains(text, old) {
			t.Errorf("the unit has no %q", old)
		} else if len(unitProblems(t, []byte(strings.Replace(text, old, new, 1)), "edge")) == 0 {
			t.Errorf("%q: nobody noticed", new)
		}
	}
}

// TestSystemdReadsTheUnits lets systemd itself say what it thinks of them. It starts
// nothing. The program is another one, because systemd asks whether it is there.
func TestSystemdReadsTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		const missing = "needs systemd-analyze (Debian, Ubuntu: apt-get install systemd)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	for _, binary := range []string{"edge", "worker"} {
		file := filepath.Join(dir, "wirepost-"+binary+".service")
		text := bytes.Replace(unitText(t, binary), []byte("/usr/local/bin/wirepost-"+binary), []byte("/bin/true"), 1)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", binary, err, out)
		}
		// Tenths of a point: 0 is behind every wall, 100 is root.
		out, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold=15", file).CombinedOutput()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) || err != nil {
			t.Errorf("%s is exposed: %v: %s", binary, err, out)
		}
	}
	broken := filepath.Join(dir, "broken.service")
	if err := os.WriteFile(broken, []byte("[Service]\nExecStart=/bin/true\nProtectSystems=strict\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(analyze, "verify", "--man=no", broken).CombinedOutput(); !strings.Contains(string(out), "ProtectSystems") {
		t.Errorf("a setting that there is not goes unnoticed: %s", out)
	}
	if _, err := exec.Command(analyze, "security", "--no-pager", "--offline=true", "--threshold=15", broken).Output(); err == nil {
		t.Error("a unit without walls is not exposed")
	}
}
