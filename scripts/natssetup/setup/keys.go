package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
)

// ErrRole is returned for a role that the shipped accounts do not have.
var ErrRole = fmt.Errorf("the roles are %s", strings.Join(Roles, ", "))

// errRotated is returned by Rotate when the role's next key is in use already, and by
// Retire when it is not: the two take turns.
var errRotated = errors.New("rotate and retire take turns")

const keysHead = `# The public keys of the NATS users, written by scripts/natssetup. There is no secret in
# it. Each role may use two: its key, and the one that comes next. accounts.conf says what
# they may do.
`

// variable is what accounts.conf calls a role's key.
func variable(role string) string { return strings.ToUpper(role) + "_NKEY" }

// nextVariable is what it calls the one that comes next.
func nextVariable(role string) string { return variable(role) + "_NEXT" }

// initKeys makes the keys when there is no KeysFile.
func (d Dir) initKeys() error {
	if _, err := os.Stat(d.path(KeysFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := bytes.NewBufferString(keysHead)
	for _, role := range Roles {
		key, err := d.newSeed(role, SeedFile)
		if err != nil {
			return fmt.Errorf("key of %s: %w", role, err)
		}
		next, err := d.newSeed(nextDir, role+".seed")
		if err != nil {
			return fmt.Errorf("next key of %s: %w", role, err)
		}
		if err := d.copyCA(role); err != nil {
			return err
		}
		fmt.Fprintf(text, "%s: %q\n%s: %q\n", variable(role), key, nextVariable(role), next)
	}
	return d.write(text.Bytes(), KeysFile) // last: without it everything is made anew
}

// newSeed writes a new seed and returns its public key.
func (d Dir) newSeed(parts ...string) (public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return "", err
	}
	defer clear(seed)
	if err := d.write(append(seed, '\n'), parts...); err != nil {
		return "", err
	}
	return pair.PublicKey()
}

// Rotate makes the role's next key, which the servers take already, the one that its
// clients are given. The one before goes on being taken until Retire.
func (d Dir) Rotate(role string) error {
	used, next, err := d.publics(role)
	if err != nil {
		return err
	}
	if used == next {
		return fmt.Errorf("rotate %s: %w: retire its old key first", role, errRotated)
	}
	seed, err := os.ReadFile(d.path(nextDir, role+".seed"))
	if err != nil {
		return err
	}
	defer clear(seed)
	return d.write(seed, role, SeedFile)
}

// Retire takes the role's key from before Rotate out of KeysFile, and puts a new next one in.
func (d Dir) Retire(role string) error {
	used, next, err := d.publics(role)
	if err != nil {
		return err
	}
	if used != next {
		return fmt.Errorf("retire %s: %w: rotate it first", role, errRotated)
	}
	text, err := os.ReadFile(d.path(KeysFile))
	if err != nil {
		return err
	}
	fresh, err := d.newSeed(nextDir, role+".seed")
	if err != nil {
		return err
	}
	for name, key := range map[string]string{variable(role): used, nextVariable(role): fresh} {
		line := regexp.MustCompile(`(?m)^` + name + `:.*$`)
		text = line.ReplaceAll(text, fmt.Appendf(nil, "%s: %q", name, key))
	}
	return d.write(text, KeysFile)
}

// publics are the public keys of the seed that a role uses and of its next one.
func (d Dir) publics(role string) (used, next string, err error) {
	if !slices.Contains(Roles, role) {
		return "", "", ErrRole
	}
	if used, err = public(d.Seed(role)); err != nil {
		return "", "", err
	}
	next, err = public(d.path(nextDir, role+".seed"))
	return used, next, err
}

func public(file string) (string, error) {
	seed, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	defer clear(seed)
	pair, err := nkeys.ParseDecoratedUserNKey(seed)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return pair.PublicKey()
}
