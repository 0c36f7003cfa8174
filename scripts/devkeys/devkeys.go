// Package devkeys is the one place of the development secret: the HS256 key under which
// `make run` accepts tokens and the tools make them.
//
// It is for development alone: bin/edge never reads this file, and has no default secret.
package devkeys

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// Dir is the folder of `make run`, below the current directory.
	Dir = ".data/dev"
	// Env names the variable that overrides the file, as it is called for bin/edge.
	Env = "JWT_HS256_SECRET"

	file     = "secret"
	minBytes = 32 // RFC 7518 section 3.2
)

// ErrShort is returned when the secret has less than 32 bytes.
var ErrShort = errors.New("the development secret is shorter than 32 bytes")

// Secret returns the secret in folder dir, and makes a random one (mode 0600) when there
// is none. Several processes may do so at once: all get the same.
func Secret(dir string) ([]byte, error) {
	path := filepath.Join(dir, file)
	secret, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("development secret: %w", err)
	}
	if err := create(dir, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("development secret: %w", err)
	}
	return read(path)
}

// Choose returns override when it is set, else the secret in dir.
func Choose(override, dir string) ([]byte, error) {
	if override == "" {
		return Secret(dir)
	}
	return check([]byte(override))
}

func read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("development secret: %w", err)
	}
	return check([]byte(strings.TrimSpace(string(b))))
}

func check(secret []byte) ([]byte, error) {
	if len(secret) < minBytes {
		return nil, ErrShort
	}
	return secret, nil
}

// create writes a whole file before it has its name, and gives it the name only if there
// is none yet.
func create(dir, path string) error {
	f, err := os.CreateTemp(dir, file+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, hex.EncodeToString(key)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// Token signs a token for user that holds for ttl from now.
func Token(secret []byte, user string, ttl time.Duration) (string, error) {
	now := time.Now()
	claims := jwt.RegisteredClaims{Subject: user, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl))}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
}
