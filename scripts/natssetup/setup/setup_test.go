package setup_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
)

func initiated(t *testing.T) setup.Dir {
	t.Helper()
	d := setup.Dir(filepath.Join(t.TempDir(), "secrets"))
	if err := d.Init(setup.Hosts("chat")); err != nil {
		t.Fatal(err)
	}
	return d
}

// files is the content of a folder, by name.
func files(t *testing.T, d setup.Dir) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(string(d), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		mode := fs.FileMode(0o600)
		if e.Name() == setup.KeysFile {
			mode = 0o644 // it has no secret, and the servers' user reads it
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
		text, err := os.ReadFile(name)
		rel, _ := filepath.Rel(string(d), name)
		all[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// changed are the names of files that differ.
func changed(before, after map[string]string) []string {
	var names []string
	for name := range after {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// publics are the keys of KeysFile, by variable.
func publics(text string) map[string]string {
	keys := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+): "(U\w+)"$`).FindAllStringSubmatch(text, -1) {
		keys[m[1]] = m[2]
	}
	return keys
}

func publicOf(t *testing.T, seed string) string {
	t.Helper()
	pair, err := nkeys.ParseDecoratedUserNKey([]byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestInit(t *testing.T) {
	d := initiated(t)
	first := files(t, d)
	keys := publics(first[setup.KeysFile])
	if len(keys) != 2*len(setup.Roles) || len(slices.Compact(slices.Sorted(maps.Values(keys)))) != len(keys) {
		t.Fatalf("keys %v", keys)
	}
	if strings.Contains(first[setup.KeysFile], `"S`) {
		t.Error("a seed is among the public keys")
	}
	for _, role := range setup.Roles {
		name := strings.ToUpper(role) + "_NKEY"
		if publicOf(t, first[role+"/nkey.seed"]) != keys[name] || publicOf(t, first["next/"+role+".seed"]) != keys[name+"_NEXT"] {
			t.Errorf("the seeds of %s are not those of its public keys", role)
		}
		if first[role+"/ca.crt"] != first["ca/ca.crt"] {
			t.Errorf("%s has another authority", role)
		}
	}
	if err := d.Init(setup.Hosts("chat")); err != nil {
		t.Fatal(err)
	}
	if names := changed(first, files(t, d)); names != nil {
		t.Errorf("a second init changed %v", names)
	}
}

func TestCertificate(t *testing.T) {
	d := initiated(t)
	first := files(t, d)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(first["ca/ca.crt"])) {
		t.Fatal("no authority")
	}
	block, _ := pem.Decode([]byte(first["nats-server/tls.crt"]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "nats-2.nats-headless", "nats-0.nats-headless.chat.svc.cluster.local", "nats.chat"} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "nats-0.nats-headless.other"}); err == nil {
		t.Error("it holds in another namespace")
	}
	if err := d.Certificate(setup.Hosts("chat")); err != nil {
		t.Fatal(err)
	}
	if names := changed(first, files(t, d)); !slices.Equal(names, []string{"nats-server/tls.crt", "nats-server/tls.key"}) {
		t.Errorf("a new certificate changed %v", names)
	}
}

// A new certificate without names holds for those of the one before, and leaves a file of
// two authorities alone.
func TestCertificateAgain(t *testing.T) {
	d := setup.Dir(t.TempDir())
	if err := d.Certificate(nil); err == nil {
		t.Error("a certificate for nobody")
	}
	if err := d.Init([]string{"nats-0.example.com", "192.0.2.7"}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(string(d), "nats-server", "ca.crt")
	two := strings.Repeat(files(t, d)["ca/ca.crt"], 2)
	if err := os.WriteFile(file, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	before := files(t, d)
	if err := d.Certificate(nil); err != nil {
		t.Fatal(err)
	}
	after := files(t, d)
	if names := changed(before, after); !slices.Equal(names, []string{"nats-server/tls.crt", "nats-server/tls.key"}) {
		t.Errorf("a new certificate changed %v", names)
	}
	block, _ := pem.Decode([]byte(after["nats-server/tls.crt"]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nats-0.example.com", "192.0.2.7"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

// Whose a file was, his it stays: a container's user reads his seed after a change.
func TestOwnersStay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	const container = 65532
	d := initiated(t)
	if err := os.Chown(d.Seed("edge"), container, container); err != nil {
		t.Fatal(err)
	}
	if err := d.Rotate("edge"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(d.Seed("edge"))
	if err != nil {
		t.Fatal(err)
	}
	if own := info.Sys().(*syscall.Stat_t); own.Uid != container || own.Gid != container || info.Mode().Perm() != 0o600 {
		t.Errorf("the seed is of %d:%d, mode %v", own.Uid, own.Gid, info.Mode())
	}
}

// Rotate changes what a client is given, retire what servers take; the two take turns, and
// no other role is touched.
func TestRotateAndRetire(t *testing.T) {
	d := initiated(t)
	if err := d.Rotate("nobody"); !errors.Is(err, setup.ErrRole) {
		t.Errorf("a role that is none: %v", err)
	}
	if err := d.Retire("edge"); err == nil {
		t.Error("a key that is in use was retired")
	}
	before := files(t, d)
	if err := d.Rotate("edge"); err != nil {
		t.Fatal(err)
	}
	rotated := files(t, d)
	if names := changed(before, rotated); !slices.Equal(names, []string{"edge/nkey.seed"}) {
		t.Errorf("rotate changed %v", names)
	}
	if rotated["edge/nkey.seed"] != before["next/edge.seed"] {
		t.Error("the seed in use is not the next one")
	}
	if err := d.Rotate("edge"); err == nil {
		t.Error("it was rotated twice, to a key that no server takes")
	}
	if err := d.Retire("edge"); err != nil {
		t.Fatal(err)
	}
	retired := files(t, d)
	if names := changed(rotated, retired); !slices.Equal(names, []string{"next/edge.seed", setup.KeysFile}) {
		t.Errorf("retire changed %v", names)
	}
	old, keys := publics(before[setup.KeysFile]), publics(retired[setup.KeysFile])
	if keys["EDGE_NKEY"] != old["EDGE_NKEY_NEXT"] || keys["EDGE_NKEY_NEXT"] != publicOf(t, retired["next/edge.seed"]) {
		t.Errorf("keys %v, before %v", keys, old)
	}
	for _, k := range []string{"EDGE_NKEY", "EDGE_NKEY_NEXT"} {
		delete(old, k)
		delete(keys, k)
	}
	if !maps.Equal(old, keys) {
		t.Errorf("other roles changed: %v, before %v", keys, old)
	}
}
