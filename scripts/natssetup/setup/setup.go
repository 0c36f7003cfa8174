// Package setup makes and renews the keys and certificates of the NATS servers and their
// users. It never talks to a server and never prints a seed.
//
//	nkeys.conf                          the users' public keys, for the servers; no secret
//	nats-server/{tls.crt,tls.key,ca.crt}
//	{edge,replay,worker,monitoring}/{nkey.seed,ca.crt}   for Kubernetes secrets
//	{admin,system}/{nkey.seed,ca.crt}   people's; not for the cluster
//	ca/{ca.crt,ca.key}                  signs servers and nothing else; not for the cluster
//	next/<role>.seed                    each role's next key; not for the cluster
//
// Each role has two keys that the servers take: the one in use and the next. So a change
// of keys never asks for the same moment at the servers and at the clients.
package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Roles are the users of the shipped accounts.
var Roles = []string{"edge", "replay", "worker", "monitoring", "admin", "system"}

// Names of files below a Dir.
const (
	KeysFile  = "nkeys.conf"
	SeedFile  = "nkey.seed" // in a role's folder
	CAFile    = "ca.crt"    // in each folder with a seed or a certificate
	certFile  = "tls.crt"
	keyFile   = "tls.key"
	caKeyFile = "ca.key"

	serverDir = "nats-server"
	caDir     = "ca"
	nextDir   = "next"
)

// Dir is the folder of one system's keys and certificates.
type Dir string

// Seed is the file with the seed that a role uses.
func (d Dir) Seed(role string) string { return d.path(role, SeedFile) }

// CA is the file with the authority's certificate.
func (d Dir) CA() string { return d.path(caDir, CAFile) }

// Init makes what is missing and leaves alone what is there. hosts are the names and
// addresses for which the servers' certificate holds.
func (d Dir) Init(hosts []string) error {
	if err := d.initCA(); err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	if _, err := os.Stat(d.path(serverDir, certFile)); errors.Is(err, fs.ErrNotExist) {
		if err := d.Certificate(hosts); err != nil {
			return err
		}
	}
	return d.initKeys()
}

func (d Dir) path(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}

// write replaces a file, with its folder if it is missing; a reader sees the old one or
// the new one. A file that was there keeps its owner, who may be the user of a container.
// Only the owner may read it, but KeysFile, which servers read that run as somebody else.
func (d Dir) write(data []byte, parts ...string) error {
	name := d.path(parts...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if filepath.Base(name) == KeysFile {
		err = errors.Join(err, f.Chmod(0o644))
	}
	if before, ok := owner(name); ok {
		err = errors.Join(err, f.Chown(int(before.Uid), int(before.Gid)))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// owner is whose a file is; ok is false when there is none.
func owner(name string) (before *syscall.Stat_t, ok bool) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, false
	}
	before, ok = info.Sys().(*syscall.Stat_t)
	return before, ok
}

// copyCA puts the authority's certificate into a folder that has none. One that is there
// may hold a second authority, while people change from one to the other.
func (d Dir) copyCA(folder string) error {
	if _, err := os.Stat(d.path(folder, CAFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := os.ReadFile(d.CA())
	if err != nil {
		return err
	}
	return d.write(text, folder, CAFile)
}
