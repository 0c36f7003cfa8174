// Package auth decides whose connection this is: it verifies the JSON Web Token of a
// handshake or a login frame and returns the user and the time until which the token
// holds (RFC 7519, RFC 8725).
//
// Each key has one algorithm, so a token cannot choose how it is verified. The room
// never sees a socket, never puts a token, a key id or a secret into an error or a log,
// and never fetches an address that a token names: the JWKS URL is configuration.
package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// MaxTokenBytes is the longest token that is looked at.
	MaxTokenBytes = 8 << 10
	// MinSecretBytes is the shortest HS256 secret (RFC 7518 section 3.2).
	MinSecretBytes = 32

	// notBeforeLeeway is how far the issuer's clock may be ahead. There is none for exp:
	// a connection that starts with an expired token would be closed at once.
	notBeforeLeeway = 5 * time.Second
	// maxExpiry ends what an exp claim can ask for, so that no sum with it overflows.
	maxExpiry = 100 * 365 * 24 * time.Hour
)

var (
	// ErrNoKeys is returned by New when no kind of key is configured.
	ErrNoKeys = errors.New("no token key is configured: set an HS256 secret, a public key or a JWKS URL")
	// ErrSecretShort is returned when the HS256 secret has less than MinSecretBytes.
	ErrSecretShort = errors.New("the HS256 secret is shorter than 32 bytes")
	// ErrSecretIsKey is returned when the HS256 secret is a PEM block: a public key used
	// as a secret lets everybody sign (RFC 8725 section 2.1).
	ErrSecretIsKey = errors.New("the HS256 secret is a PEM block, which is no secret")
)

// Options are what a Verifier is made of. At least one of HS256Secret, PublicKeys and
// JWKSURL is needed; several work side by side.
type Options struct {
	HS256Secret []byte      // ≥ MinSecretBytes; empty: HS256 tokens are refused
	PublicKeys  []PublicKey // from ParsePublicKeys; each is tried for its algorithm whatever the token's kid
	JWKSURL     string      // http or https; empty: no keys are fetched
	Issuer      string      // the iss that a token must have; empty: not checked
	Audience    string      // one of the token's aud; empty: not checked

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Identity is what a valid token says.
type Identity struct {
	User    userid.ID
	Expires time.Time // always set
}

// Verifier verifies tokens. Verify may be called from any goroutine.
type Verifier struct {
	secret []byte
	static map[string][]jwt.VerificationKey // by algorithm
	remote *remoteKeys                      // nil without a JWKS URL
	parser *jwt.Parser

	issuer, audience string
	metrics          *metrics
}

// New returns a Verifier. It fetches nothing: Run does.
func New(o Options) (*Verifier, error) {
	if len(o.HS256Secret) == 0 && len(o.PublicKeys) == 0 && o.JWKSURL == "" {
		return nil, ErrNoKeys
	}
	if err := CheckSecret(o.HS256Secret); len(o.HS256Secret) > 0 && err != nil {
		return nil, err
	}
	v := &Verifier{
		secret:   o.HS256Secret,
		static:   map[string][]jwt.VerificationKey{},
		issuer:   o.Issuer,
		audience: o.Audience,
		metrics:  newMetrics(o.Registerer),
		parser: jwt.NewParser(
			jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation(), // Verifier.check does it, in its own order
		),
	}
	for _, k := range o.PublicKeys {
		v.static[k.alg] = append(v.static[k.alg], k.key)
	}
	if o.JWKSURL != "" {
		remote, err := newRemoteKeys(o.JWKSURL, o.Log, v.metrics)
		if err != nil {
			return nil, err
		}
		v.remote = remote
	}
	return v, nil
}

// CheckSecret returns ErrSecretShort or ErrSecretIsKey for a secret that New refuses.
func CheckSecret(secret []byte) error {
	switch {
	case strings.Contains(string(secret), "-----BEGIN "):
		return ErrSecretIsKey
	case len(secret) < MinSecretBytes:
		return ErrSecretShort
	}
	return nil
}

// Run fetches the JWKS and keeps it fresh until ctx ends; without a JWKS URL it only
// waits for that. Until the first fetch succeeds, tokens that need it are refused with
// ErrKeysUnavailable.
func (v *Verifier) Run(ctx context.Context) {
	if v.remote == nil {
		<-ctx.Done()
		return
	}
	v.remote.run(ctx)
}

// Ready returns nil when at least one kind of key can be used, and else an error that
// says what is missing, for a readiness check.
func (v *Verifier) Ready() error {
	if v.remote == nil || len(v.secret) > 0 || len(v.static) > 0 || v.remote.fetched() {
		return nil
	}
	return ErrKeysUnavailable
}

// Verify returns whom the token names. The error is always a *Refusal. With a JWKS URL
// it may wait for a fetch, for at most 2 seconds and never for longer than ctx, and at
// most 2 callers wait at a time: call it where that may be, never on a loop.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	id, refusal := v.verify(ctx, token)
	v.metrics.count(refusal)
	if refusal != nil {
		return Identity{}, refusal
	}
	return id, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (Identity, *Refusal) {
	if token == "" || len(token) > MaxTokenBytes {
		return Identity{}, ErrMalformed
	}
	claims, missing, refusal := v.signed(token)
	if missing && v.remote != nil {
		v.remote.refetch(ctx)
		claims, missing, refusal = v.signed(token)
		if missing && v.remote.fetched() {
			refusal = ErrUnknownKey
		} else if missing {
			refusal = ErrKeysUnavailable
		}
	}
	if refusal != nil {
		return Identity{}, refusal
	}
	return v.check(claims, time.Now())
}

// signed returns the claims of a token whose signature holds. missing reports that a
// key which is not known yet might verify it.
func (v *Verifier) signed(token string) (claims *claimSet, missing bool, refusal *Refusal) {
	claims = &claimSet{}
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		keys, miss, err := v.keys(t)
		missing = miss
		return jwt.VerificationKeySet{Keys: keys}, err
	})
	var own *Refusal
	switch {
	case err == nil:
		return claims, false, nil
	case errors.As(err, &own):
		return nil, missing, own
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, missing, ErrSignature
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, false, ErrMalformed
	}
	return nil, false, ErrAlgorithm
}

// keys returns the keys that may verify t: those of exactly its algorithm.
func (v *Verifier) keys(t *jwt.Token) (keys []jwt.VerificationKey, missing bool, err error) {
	if _, ok := t.Header["crit"]; ok {
		return nil, false, ErrMalformed // RFC 7515 section 4.1.11: not understood, so refused
	}
	kid, ok := t.Header["kid"].(string)
	if _, present := t.Header["kid"]; present && !ok {
		return nil, false, ErrMalformed
	}
	alg := t.Method.Alg()
	switch alg {
	case algRS256, algES256, algEdDSA:
	case algHS256: // the secret alone: never a public key, never a fetched one
		if len(v.secret) == 0 {
			return nil, false, ErrAlgorithm
		}
		return []jwt.VerificationKey{v.secret}, false, nil
	default:
		return nil, false, ErrAlgorithm
	}
	keys = v.static[alg]
	if v.remote != nil {
		found, known := v.remote.lookup(kid, alg)
		keys = append(keys[:len(keys):len(keys)], found...)
		missing = !known
	}
	if len(keys) == 0 {
		return nil, missing, ErrAlgorithm
	}
	return keys, missing, nil
}

// check applies RFC 7519 section 4.1. What no new token of the same issuer would cure
// comes first, so that a client is not sent to fetch tokens for ever.
func (v *Verifier) check(c *claimSet, now time.Time) (Identity, *Refusal) {
	if v.issuer != "" && c.Issuer != v.issuer {
		return Identity{}, ErrIssuer
	}
	if v.audience != "" && !contains(c.Audience, v.audience) {
		return Identity{}, ErrAudience
	}
	user, err := userid.Parse(c.Subject)
	if err != nil || strings.ContainsRune(c.Subject, utf8.RuneError) { // which a broken escape becomes: users would share it
		return Identity{}, ErrSubject
	}
	if c.ExpiresAt == "" {
		return Identity{}, ErrNoExpiry
	}
	expires, ok := numericDate(c.ExpiresAt, now)
	if !ok {
		return Identity{}, ErrMalformed
	}
	if !now.Before(expires) {
		return Identity{}, ErrExpired
	}
	if c.NotBefore != "" {
		from, ok := numericDate(c.NotBefore, now)
		if !ok {
			return Identity{}, ErrMalformed
		}
		if now.Add(notBeforeLeeway).Before(from) {
			return Identity{}, ErrNotYet
		}
	}
	return Identity{User: user, Expires: expires}, nil
}

// claimSet is what is read of a token's claims. It is not jwt.RegisteredClaims because
// that turns a date which no int64 holds into a wrong one, and is read by names in any
// case, of which the last one wins.
type claimSet struct {
	Issuer    string
	Subject   string
	Audience  jwt.ClaimStrings
	ExpiresAt json.Number
	NotBefore json.Number

	jwt.Claims // nil: the parser wants the type, and asks nothing without validation
}

var errClaims = errors.New("claims are no object, are no UTF-8, or one of them comes twice")

// UnmarshalJSON reads the claims by their exact names. It refuses one that comes twice:
// which of them counts would be a guess (RFC 7519 section 4).
func (c *claimSet) UnmarshalJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errClaims
	}
	into := map[string]any{"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "exp": &c.ExpiresAt, "nbf": &c.NotBefore}
	d := json.NewDecoder(bytes.NewReader(b))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errClaims
	}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := name.(string) // the decoder refuses another type
		field, ours := into[key]
		if !ours {
			field = new(json.RawMessage)
		} else if seen[key] {
			return errClaims
		}
		seen[key] = true
		if err := d.Decode(field); err != nil {
			return err
		}
	}
	return nil
}

// numericDate reads a NumericDate (RFC 7519 section 2), no later than maxExpiry from now.
func numericDate(n json.Number, now time.Time) (time.Time, bool) {
	f, err := n.Float64()
	if err != nil || f < 0 {
		return time.Time{}, false
	}
	if limit := now.Add(maxExpiry); f > float64(limit.Unix()) {
		return limit, true
	}
	return time.UnixMilli(int64(f * 1000)), true
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}
