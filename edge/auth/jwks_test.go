package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is a JWKS server whose answers a test sets.
type issuer struct {
	*httptest.Server
	served chan struct{} // one value for each answer given

	mu     sync.Mutex
	status int
	body   string
	hold   chan struct{} // not nil: an answer waits until it is closed
}

func newIssuer(t *testing.T, set ...string) *issuer {
	s := &issuer{served: make(chan struct{}, 100), status: http.StatusOK, body: jwks(set...)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		status, body, hold := s.status, s.body, s.hold
		s.mu.Unlock()
		if hold != nil {
			<-hold
		}
		if r.URL.Path == "/elsewhere" { // a redirect that is followed finds usable keys
			status, body = http.StatusOK, jwks(jwk("1", keys().rsa.Public(), nil))
		}
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		s.served <- struct{}{}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *issuer) answer(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func jwk(kid string, pub crypto.PublicKey, extra map[string]any) string {
	b64 := base64.RawURLEncoding.EncodeToString
	m := map[string]any{"use": "sig"}
	if kid != "" {
		m["kid"] = kid
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y
		if err != nil {
			panic(err)
		}
		m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(k)
	}
	for k, v := range extra {
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// start runs a Verifier with timings of a test until the test ends.
func start(t *testing.T, o Options, change func(*timing)) *Verifier {
	t.Helper()
	v := newVerifier(t, o)
	v.remote.timing.retryMin = 5 * time.Millisecond
	v.remote.timing.retryMax = 20 * time.Millisecond
	if change != nil {
		change(&v.remote.timing)
	}
	v.remote.limiter = rate.NewLimiter(rate.Every(v.remote.timing.unknown), 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); v.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return v
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited 10 s for %s", what)
	}
}

// eventually polls where no signal exists: the set is stored after the answer is sent.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited 10 s until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func verify(v *Verifier, token string) error {
	_, err := v.Verify(context.Background(), token)
	return err
}

func withKid(t *testing.T, kid string, method jwt.SigningMethod, key any) string {
	t.Helper()
	h := map[string]any{}
	if kid != "" {
		h["kid"] = kid
	}
	return sign(t, method, key, h, claims(nil))
}

func TestJWKS(t *testing.T) {
	k := keys()
	s := newIssuer(t,
		jwk("r", k.rsa.Public(), map[string]any{"alg": "RS256"}), jwk("e", k.ec.Public(), nil), jwk("d", k.ed.Public(), nil),
		jwk("", k.otherRSA.Public(), nil),
		`{"kty":"OKP","crv":"Ed448","kid":"odd","x":"AA"}`, // not supported: skipped, the others stay
		`{"kty":"oct","kid":"h","k":"`+base64.RawURLEncoding.EncodeToString([]byte(secret))+`"}`,
		jwk("enc", k.rsa.Public(), map[string]any{"use": "enc"}),
		jwk("r512", k.rsa.Public(), map[string]any{"alg": "RS512"}),
		`7`,
	)
	v := start(t, Options{JWKSURL: s.URL}, nil)
	eventually(t, "the keys are there", func() bool { return v.Ready() == nil })
	for _, c := range []struct {
		name, token string
		want        *Refusal
	}{
		{"RS256", withKid(t, "r", jwt.SigningMethodRS256, k.rsa), nil},
		{"ES256", withKid(t, "e", jwt.SigningMethodES256, k.ec), nil},
		{"EdDSA", withKid(t, "d", jwt.SigningMethodEdDSA, k.ed), nil},
		{"no kid, and one key has none", withKid(t, "", jwt.SigningMethodRS256, k.otherRSA), nil},
		{"the kid of another key", withKid(t, "r", jwt.SigningMethodRS256, k.otherRSA), ErrSignature},
		{"the kid of a key of another algorithm", withKid(t, "e", jwt.SigningMethodRS256, k.rsa), ErrAlgorithm},
		{"unknown kid", withKid(t, "x", jwt.SigningMethodRS256, k.rsa), ErrUnknownKey},
		{"a key for encryption", withKid(t, "enc", jwt.SigningMethodRS256, k.rsa), ErrUnknownKey},
		{"a key for another algorithm", withKid(t, "r512", jwt.SigningMethodRS256, k.rsa), ErrUnknownKey},
		{"a secret in the JWKS", withKid(t, "h", jwt.SigningMethodHS256, []byte(secret)), ErrAlgorithm},
		{"none", withKid(t, "r", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), ErrAlgorithm},
		{"RS512", withKid(t, "r512", jwt.SigningMethodRS512, k.rsa), ErrAlgorithm},
	} {
		t.Run(c.name, func(t *testing.T) { checkRefusal(t, verify(v, c.token), c.want) })
	}
}

// TestJWKSRotation: the first token of a new key is accepted, and the old key goes.
func TestJWKSRotation(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.rsa.Public(), nil))
	v := start(t, Options{JWKSURL: s.URL}, nil)
	await(t, s.served, "the first fetch")
	eventually(t, "the keys are there", v.remote.fetched)
	checkRefusal(t, verify(v, withKid(t, "1", jwt.SigningMethodRS256, k.rsa)), nil)

	s.answer(http.StatusOK, jwks(jwk("2", k.otherRSA.Public(), nil)))
	checkRefusal(t, verify(v, withKid(t, "2", jwt.SigningMethodRS256, k.otherRSA)), nil)
	checkRefusal(t, verify(v, withKid(t, "1", jwt.SigningMethodRS256, k.rsa)), ErrUnknownKey)
}

// TestJWKSRotationBesideStaticKey: a static key of the same algorithm does not hide it.
func TestJWKSRotationBesideStaticKey(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.ec.Public(), nil))
	v := start(t, Options{JWKSURL: s.URL, PublicKeys: publicKeys(t, k.rsa.Public())}, nil)
	eventually(t, "the keys are there", v.remote.fetched)
	s.answer(http.StatusOK, jwks(jwk("2", k.otherRSA.Public(), nil)))
	checkRefusal(t, verify(v, withKid(t, "2", jwt.SigningMethodRS256, k.otherRSA)), nil)
	checkRefusal(t, verify(v, withKid(t, "2", jwt.SigningMethodRS256, k.rsa)), nil)
}

func TestJWKSBackgroundRefresh(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.rsa.Public(), nil))
	v := start(t, Options{JWKSURL: s.URL}, func(tm *timing) { tm.refresh = 5 * time.Millisecond })
	old := withKid(t, "1", jwt.SigningMethodRS256, k.rsa)
	eventually(t, "the first key is there", func() bool { return verify(v, old) == nil })
	s.answer(http.StatusOK, jwks(jwk("2", k.ec.Public(), nil)))
	eventually(t, "the withdrawn key is refused", func() bool { return verify(v, old) != nil })
	checkRefusal(t, verify(v, withKid(t, "2", jwt.SigningMethodES256, k.ec)), nil)
}

// TestUnknownKidFetchIsLimited: made-up kids cause one fetch in timing.unknown.
func TestUnknownKidFetchIsLimited(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.rsa.Public(), nil))
	v := start(t, Options{JWKSURL: s.URL}, func(tm *timing) { tm.unknown = time.Hour })
	await(t, s.served, "the first fetch")
	eventually(t, "the keys are there", v.remote.fetched)
	for i := range 50 {
		checkRefusal(t, verify(v, withKid(t, fmt.Sprint("x", i), jwt.SigningMethodRS256, k.rsa)), ErrUnknownKey)
	}
	await(t, s.served, "the one fetch for an unknown kid")
	if n := len(s.served); n != 0 {
		t.Errorf("%d fetches too many", n)
	}
	checkRefusal(t, verify(v, withKid(t, "1", jwt.SigningMethodRS256, k.rsa)), nil)
}

// TestJWKSAway: an issuer that is away at start fails nothing but the tokens, and its
// return is noticed without one.
func TestJWKSAway(t *testing.T) {
	k := keys()
	token := withKid(t, "1", jwt.SigningMethodRS256, k.rsa)
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"error":     {http.StatusServiceUnavailable, ""},
		"page":      {http.StatusOK, "<html>"},
		"no keys":   {http.StatusOK, "{}"},
		"redirect":  {http.StatusFound, ""},
		"too large": {http.StatusOK, strings.Repeat(" ", maxJWKSBytes) + jwks(jwk("1", k.rsa.Public(), nil))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newIssuer(t)
			s.answer(c.status, c.body)
			v := start(t, Options{JWKSURL: s.URL}, nil)
			await(t, s.served, "the first fetch")
			checkRefusal(t, verify(v, token), ErrKeysUnavailable)
			if v.Ready() == nil {
				t.Error("ready without any key")
			}
			s.answer(http.StatusOK, jwks(jwk("1", k.rsa.Public(), nil)))
			eventually(t, "it is ready", func() bool { return v.Ready() == nil })
			checkRefusal(t, verify(v, token), nil)
		})
	}
}

// TestJWKSFailureKeepsKeys: a bad answer later does not take the keys away.
func TestJWKSFailureKeepsKeys(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.rsa.Public(), nil))
	v := start(t, Options{JWKSURL: s.URL}, func(tm *timing) { tm.refresh = time.Millisecond })
	eventually(t, "the keys are there", v.remote.fetched)
	s.answer(http.StatusOK, `{"keys":[]}`)
	for len(s.served) > 0 {
		<-s.served
	}
	for range 3 { // the third answer is surely a bad one, and the second has been worked
		await(t, s.served, "a bad answer")
	}
	checkRefusal(t, verify(v, withKid(t, "1", jwt.SigningMethodRS256, k.rsa)), nil)
}

// TestSlowIssuerHoldsFewCallers: while a fetch hangs, two callers wait and no more, and
// each for no longer than its context.
func TestSlowIssuerHoldsFewCallers(t *testing.T) {
	k := keys()
	s := newIssuer(t, jwk("1", k.rsa.Public(), nil))
	s.hold = make(chan struct{})
	v := start(t, Options{JWKSURL: s.URL}, func(tm *timing) { tm.wait, tm.fetch = time.Hour, time.Hour })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	token := withKid(t, "1", jwt.SigningMethodRS256, k.rsa)
	errs := make(chan error, maxWaiting)
	for range maxWaiting {
		go func() { _, err := v.Verify(ctx, token); errs <- err }()
	}
	eventually(t, "two callers wait", func() bool { return v.remote.waiting.Load() == maxWaiting })
	brief, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, err := v.Verify(brief, token)
	checkRefusal(t, err, ErrKeysUnavailable)
	if brief.Err() != nil {
		t.Error("a third caller waited")
	}
	cancel()
	for range maxWaiting {
		checkRefusal(t, <-errs, ErrKeysUnavailable)
	}
	close(s.hold)
	eventually(t, "the keys are there", v.remote.fetched)
	checkRefusal(t, verify(v, token), nil)
}
