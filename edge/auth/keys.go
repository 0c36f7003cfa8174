package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// The algorithms that are accepted (RFC 7518 section 3.1, RFC 8037).
const (
	algHS256 = "HS256"
	algRS256 = "RS256"
	algES256 = "ES256"
	algEdDSA = "EdDSA"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // a larger key makes each verification a burden
)

var (
	// ErrNoPublicKey is returned when a PEM text holds no block.
	ErrNoPublicKey = errors.New("no PEM block with a public key")
	// ErrPrivateKey is returned when a PEM text holds a private key.
	ErrPrivateKey = errors.New("holds a private key, give the edge the public one")
	// ErrKeyKind is returned when a key is of a kind or size that is not accepted.
	ErrKeyKind = errors.New("the key is none of RSA (2048 to 8192 bits), ECDSA P-256, Ed25519")
)

// PublicKey is a key with its one algorithm.
type PublicKey struct {
	alg string
	key jwt.VerificationKey
}

// Algorithm returns RS256, ES256 or EdDSA.
func (k PublicKey) Algorithm() string { return k.alg }

// ParsePublicKeys reads one or more PEM blocks ("PUBLIC KEY" or "RSA PUBLIC KEY"); with
// several of one algorithm each is tried, which is how a static key is rotated.
func ParsePublicKeys(text []byte) ([]PublicKey, error) {
	var keys []PublicKey
	for rest := bytes.TrimSpace(text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		k, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, k)
		rest = bytes.TrimSpace(rest)
	}
	if len(keys) == 0 {
		return nil, ErrNoPublicKey
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (PublicKey, error) {
	if strings.Contains(block.Type, "PRIVATE") {
		return PublicKey{}, ErrPrivateKey
	}
	var key any
	var err error
	if block.Type == "RSA PUBLIC KEY" {
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	} else {
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return newPublicKey(key)
}

// newPublicKey fixes the algorithm of a key: its kind decides, never a token.
func newPublicKey(key any) (PublicKey, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); minRSABits <= bits && bits <= maxRSABits {
			return PublicKey{algRS256, k}, nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return PublicKey{algES256, k}, nil
		}
	case ed25519.PublicKey:
		return PublicKey{algEdDSA, k}, nil
	}
	return PublicKey{}, ErrKeyKind
}
