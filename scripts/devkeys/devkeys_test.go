package devkeys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestSecretIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "dev")
	var mu sync.Mutex
	var all [][]byte
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Secret(dir)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			all = append(all, s)
		})
	}
	wg.Wait()
	for _, s := range all {
		if !bytes.Equal(s, all[0]) || len(s) < minBytes {
			t.Errorf("secrets %q and %q", s, all[0])
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, file))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if other, err := Secret(t.TempDir()); err != nil || bytes.Equal(other, all[0]) {
		t.Errorf("another folder has the same secret, %v", err)
	}
}

func TestChoose(t *testing.T) {
	dir := t.TempDir()
	long := "0123456789abcdef0123456789abcdef"
	if s, err := Choose(long, dir); err != nil || string(s) != long {
		t.Errorf("override: %q %v", s, err)
	}
	if _, err := Choose("short", dir); !errors.Is(err, ErrShort) {
		t.Errorf("short: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Error("an override made a file")
	}
}

func TestToken(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	signed, err := Token(secret, "alice", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.RegisteredClaims
	if _, err := jwt.ParseWithClaims(signed, &claims, func(*jwt.Token) (any, error) { return secret, nil }, jwt.WithValidMethods([]string{"HS256"})); err != nil {
		t.Fatal(err)
	}
	if claims.Subject != "alice" || time.Until(claims.ExpiresAt.Time) < 59*time.Minute {
		t.Errorf("claims %+v", claims)
	}
}
