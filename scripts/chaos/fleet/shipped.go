package fleet

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
)

// loopback is the only name in the certificate of the nats-servers.
const loopback = "127.0.0.1"

// makeKeys makes keys and a certificate with the tool that operators use.
func (f *Fleet) makeKeys() error {
	f.keys = setup.Dir(filepath.Join(f.spec.Dir, "keys"))
	return f.keys.Init([]string{loopback})
}

// shipNode copies the configuration that is shipped for a node, and changes nothing in it
// but the folders. Where the node is on this machine is on its command line.
func (f *Fleet) shipNode(p *Process, route string, dials []string) error {
	shipped, etc, keys := filepath.Join(f.spec.Shipped, "nats"), filepath.Join(f.spec.Dir, "etc-"+p.Name), string(f.keys)
	folders := strings.NewReplacer("/etc/nats/", etc+"/", "/data/", f.folder(p)+"/", "/var/run/nats/nats.pid", f.pidFile(p))
	for to, from := range map[string]string{
		"nats.conf":           filepath.Join(shipped, "nats.conf"),
		"accounts.conf":       filepath.Join(shipped, "accounts.conf"),
		"nkeys/nkeys.conf":    filepath.Join(keys, setup.KeysFile),
		"tls/" + setup.CAFile: filepath.Join(keys, "nats-server", setup.CAFile),
		"tls/tls.crt":         filepath.Join(keys, "nats-server", "tls.crt"),
		"tls/tls.key":         filepath.Join(keys, "nats-server", "tls.key"),
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("configuration of nats: %w", err)
		}
		to = filepath.Join(etc, to)
		if err := makeFolder(filepath.Dir(to)); err != nil {
			return err
		}
		if err := os.WriteFile(to, []byte(folders.Replace(string(text))), 0o600); err != nil {
			return fmt.Errorf("configuration of nats: %w", err)
		}
	}
	_, client, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	_, monitor, err := net.SplitHostPort(p.Admin)
	if err != nil {
		return err
	}
	p.command.args = []string{"-c", filepath.Join(etc, "nats.conf"), "-a", loopback, "-p", client, "-m", monitor,
		"--cluster", "nats-route://" + route, "--routes", strings.Join(dials, ",")}
	p.command.env = append(p.command.env, "POD_NAME="+p.Name)
	return nil
}

// scheme of a URL of the nats-servers.
func (f *Fleet) scheme() string {
	if f.spec.Shipped != "" {
		return "tls://"
	}
	return "nats://"
}

// credentials are the variables with which an edge or a worker signs in.
func (f *Fleet) credentials(k Kind) []string {
	switch {
	case f.spec.Shipped == "":
		return nil
	case k == Edge:
		return []string{"NATS_NKEY=" + f.keys.Seed("edge"), "NATS_REPLAY_NKEY=" + f.keys.Seed("replay"), "NATS_CA=" + f.keys.CA()}
	}
	return []string{"NATS_NKEY=" + f.keys.Seed("worker"), "NATS_CA=" + f.keys.CA()}
}

// asAdmin signs the fleet's own connection in.
func (f *Fleet) asAdmin() ([]nats.Option, error) {
	if f.spec.Shipped == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.keys.Seed("admin"))
	if err != nil {
		return nil, fmt.Errorf("key of the admin: %w", err)
	}
	pair, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return nil, fmt.Errorf("key of the admin: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("key of the admin: %w", err)
	}
	return []nats.Option{nats.RootCAs(f.keys.CA()), nats.Nkey(public, pair.Sign)}, nil
}
