package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wirepost/wirepost/shared/protocol"
)

const secret = "0123456789abcdef0123456789abcdef"

// keyring holds one real key pair of each kind.
type keyring struct {
	rsa, otherRSA *rsa.PrivateKey
	ec            *ecdsa.PrivateKey
	ed            ed25519.PrivateKey
}

var keys = sync.OnceValue(func() keyring {
	var k keyring
	var err error
	check := func() {
		if err != nil {
			panic(err)
		}
	}
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	check()
	k.otherRSA, err = rsa.GenerateKey(rand.Reader, 2048)
	check()
	k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check()
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	check()
	return k
})

func pemOf(t *testing.T, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func publicKeys(t *testing.T, pubs ...crypto.PublicKey) []PublicKey {
	t.Helper()
	var text []byte
	for _, p := range pubs {
		text = append(text, pemOf(t, p)...)
	}
	k, err := ParsePublicKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// claims returns valid claims with some changed; a nil value takes one away.
func claims(change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{
		"sub": "u1001", "iss": "https://id.example", "aud": []string{"chat", "other"},
		"exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(t *testing.T, method jwt.SigningMethod, key any, header map[string]any, c jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, c)
	maps.Copy(tok.Header, header)
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newVerifier(t *testing.T, o Options) *Verifier {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerify(t *testing.T) {
	k := keys()
	all := newVerifier(t, Options{
		HS256Secret: []byte(secret),
		PublicKeys:  publicKeys(t, k.rsa.Public(), k.ec.Public(), k.ed.Public()),
		Issuer:      "https://id.example",
		Audience:    "chat",
	})
	hs := func(c jwt.MapClaims) string { return sign(t, jwt.SigningMethodHS256, []byte(secret), nil, claims(c)) }
	good := hs(nil)
	part := strings.Split(good, ".")
	for _, c := range []struct {
		name, token string
		want        *Refusal
	}{
		{"HS256", good, nil},
		{"RS256", sign(t, jwt.SigningMethodRS256, k.rsa, nil, claims(nil)), nil},
		{"ES256", sign(t, jwt.SigningMethodES256, k.ec, nil, claims(nil)), nil},
		{"EdDSA", sign(t, jwt.SigningMethodEdDSA, k.ed, nil, claims(nil)), nil},
		{"a kid, which a static key does not need", sign(t, jwt.SigningMethodEdDSA, k.ed, map[string]any{"kid": "x"}, claims(nil)), nil},
		{"aud as one string", hs(jwt.MapClaims{"aud": "chat"}), nil},
		{"nbf within the leeway", hs(jwt.MapClaims{"nbf": time.Now().Add(2 * time.Second).Unix()}), nil},
		{"exp with a fraction", hs(jwt.MapClaims{"exp": float64(time.Now().Unix()) + 3600.5}), nil},
		{"exp beyond every clock", hs(jwt.MapClaims{"exp": 1e300}), nil},

		{"expired", hs(jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()}), ErrExpired},
		{"expired at zero", hs(jwt.MapClaims{"exp": 0}), ErrExpired},
		{"nbf ahead", hs(jwt.MapClaims{"nbf": time.Now().Add(time.Minute).Unix()}), ErrNotYet},

		{"no exp", hs(jwt.MapClaims{"exp": nil}), ErrNoExpiry},
		{"exp is no number", hs(jwt.MapClaims{"exp": "soon"}), ErrMalformed},
		{"exp before the epoch", hs(jwt.MapClaims{"exp": -1}), ErrMalformed},
		{"nbf is no number", hs(jwt.MapClaims{"nbf": []int{1}}), ErrMalformed},
		{"foreign issuer", hs(jwt.MapClaims{"iss": "https://evil.example"}), ErrIssuer},
		{"foreign issuer, expired too", hs(jwt.MapClaims{"iss": "x", "exp": 1}), ErrIssuer},
		{"no issuer", hs(jwt.MapClaims{"iss": nil}), ErrIssuer},
		{"foreign audience", hs(jwt.MapClaims{"aud": "mail"}), ErrAudience},
		{"no audience", hs(jwt.MapClaims{"aud": nil}), ErrAudience},
		{"no subject", hs(jwt.MapClaims{"sub": nil}), ErrSubject},
		{"subject too long", hs(jwt.MapClaims{"sub": strings.Repeat("x", 129)}), ErrSubject},
		{"subject is a number", hs(jwt.MapClaims{"sub": 7}), ErrMalformed},

		{"empty", "", ErrMalformed},
		{"no JWT", "hello", ErrMalformed},
		{"four parts", good + ".x", ErrMalformed},
		{"longer than 8 KB", hs(jwt.MapClaims{"pad": strings.Repeat("x", MaxTokenBytes)}), ErrMalformed},
		{"kid is a number", sign(t, jwt.SigningMethodHS256, []byte(secret), map[string]any{"kid": 1}, claims(nil)), ErrMalformed},
		{"crit", sign(t, jwt.SigningMethodHS256, []byte(secret), map[string]any{"crit": []string{"b64"}}, claims(nil)), ErrMalformed},
		{"signature cut off", part[0] + "." + part[1] + ".", ErrSignature},
		{"signature of another token", part[0] + "." + part[1] + "." + strings.Split(hs(jwt.MapClaims{"x": 1}), ".")[2], ErrSignature},
		{"claims exchanged", part[0] + "." + strings.Split(hs(jwt.MapClaims{"sub": "root"}), ".")[1] + "." + part[2], ErrSignature},
		{"other secret", sign(t, jwt.SigningMethodHS256, []byte(strings.Repeat("y", 32)), nil, claims(nil)), ErrSignature},
		{"other RSA key", sign(t, jwt.SigningMethodRS256, k.otherRSA, nil, claims(nil)), ErrSignature},

		{"none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, claims(nil)), ErrAlgorithm},
		{"HS512", sign(t, jwt.SigningMethodHS512, []byte(secret), nil, claims(nil)), ErrAlgorithm},
		{"RS512 by the RS256 key", sign(t, jwt.SigningMethodRS512, k.rsa, nil, claims(nil)), ErrAlgorithm},
		{"PS256 by the RS256 key", sign(t, jwt.SigningMethodPS256, k.rsa, nil, claims(nil)), ErrAlgorithm},
		{"an algorithm that nobody knows", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"X"}`)) + "." + part[1] + "." + part[2], ErrAlgorithm},
		{"no algorithm", base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + "." + part[1] + "." + part[2], ErrAlgorithm},
		{"HS256 with the RSA key as secret", sign(t, jwt.SigningMethodHS256, pemOf(t, k.rsa.Public()), nil, claims(nil)), ErrSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := all.Verify(context.Background(), c.token)
			checkRefusal(t, err, c.want)
			if c.want == nil && (id.User.Raw() != "u1001" || time.Until(id.Expires) < time.Hour-time.Minute) {
				t.Errorf("identity %v, expires %v", id.User, id.Expires)
			}
			if c.want != nil && id != (Identity{}) {
				t.Errorf("identity %v beside a refusal", id)
			}
			if c.want != nil && len(c.token) > 20 && strings.Contains(err.Error(), c.token[:10]) {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}

func checkRefusal(t *testing.T, err error, want *Refusal) {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var got *Refusal
	if !errors.As(err, &got) || got != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

// TestOneKindOnly: a key of one kind opens nothing for tokens of another.
func TestOneKindOnly(t *testing.T) {
	k := keys()
	tokens := map[string]string{
		algHS256: sign(t, jwt.SigningMethodHS256, []byte(secret), nil, claims(nil)),
		algRS256: sign(t, jwt.SigningMethodRS256, k.rsa, nil, claims(nil)),
		algES256: sign(t, jwt.SigningMethodES256, k.ec, nil, claims(nil)),
		algEdDSA: sign(t, jwt.SigningMethodEdDSA, k.ed, nil, claims(nil)),
		// RFC 8725 section 2.1: the attacker knows the public key and signs with it.
		"confused": sign(t, jwt.SigningMethodHS256, pemOf(t, k.rsa.Public()), nil, claims(nil)),
	}
	for alg, o := range map[string]Options{
		algHS256: {HS256Secret: []byte(secret)},
		algRS256: {PublicKeys: publicKeys(t, k.rsa.Public())},
		algES256: {PublicKeys: publicKeys(t, k.ec.Public())},
		algEdDSA: {PublicKeys: publicKeys(t, k.ed.Public())},
	} {
		v := newVerifier(t, o)
		for of, token := range tokens {
			want := ErrAlgorithm
			if of == alg {
				want = nil
			}
			if of == "confused" && alg == algHS256 {
				want = ErrSignature
			}
			t.Run(alg+"/"+of, func(t *testing.T) {
				_, err := v.Verify(context.Background(), token)
				checkRefusal(t, err, want)
			})
		}
	}
}

func TestStaticRotation(t *testing.T) {
	k := keys()
	v := newVerifier(t, Options{PublicKeys: publicKeys(t, k.otherRSA.Public(), k.rsa.Public())})
	for _, key := range []*rsa.PrivateKey{k.rsa, k.otherRSA} {
		_, err := v.Verify(context.Background(), sign(t, jwt.SigningMethodRS256, key, nil, claims(nil)))
		checkRefusal(t, err, nil)
	}
}

func TestNewRefuses(t *testing.T) {
	k := keys()
	for _, c := range []struct {
		name string
		o    Options
		want error
	}{
		{"nothing", Options{}, ErrNoKeys},
		{"short secret", Options{HS256Secret: []byte(secret[1:])}, ErrSecretShort},
		{"a public key as secret", Options{HS256Secret: pemOf(t, k.rsa.Public())}, ErrSecretIsKey},
		{"relative JWKS URL", Options{JWKSURL: "/keys"}, errURL},
		{"file JWKS URL", Options{JWKSURL: "file:///etc/keys"}, errURL},
	} {
		if _, err := New(c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParsePublicKeysRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(keys().rsa)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, c := range map[string]struct {
		text []byte
		want error
	}{
		"empty":       {nil, ErrNoPublicKey},
		"no PEM":      {[]byte("ssh-ed25519 AAAA"), ErrNoPublicKey},
		"private key": {private, ErrPrivateKey},
		"P-384":       {pemOf(t, p384.Public()), ErrKeyKind},
		"good, bad":   {append(pemOf(t, keys().ec.Public()), private...), ErrPrivateKey},
	} {
		got, err := ParsePublicKeys(c.text)
		if !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, c.want)
		}
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&keys().rsa.PublicKey)})
	if got, err := ParsePublicKeys(pkcs1); err != nil || len(got) != 1 || got[0].Algorithm() != algRS256 {
		t.Errorf("PKCS #1: %v, %v", got, err)
	}
}

func TestRefusalsAreCountedAndFit(t *testing.T) {
	reg := prometheus.NewRegistry()
	v := newVerifier(t, Options{HS256Secret: []byte(secret), Registerer: reg})
	_, _ = v.Verify(context.Background(), "x")
	_, _ = v.Verify(context.Background(), sign(t, jwt.SigningMethodHS256, []byte(secret), nil, claims(nil)))
	if got := testutil.ToFloat64(v.metrics.refused[ErrMalformed]); got != 1 {
		t.Errorf("malformed counted %v times", got)
	}
	if got := testutil.ToFloat64(v.metrics.verified); got != 1 {
		t.Errorf("verified counted %v times", got)
	}
	labels := map[string]bool{}
	for _, r := range refusals {
		if again, newToken := protocol.Reconnect(r.Close); again != newToken || again != (r.Close == protocol.CloseTokenExpired) {
			t.Errorf("%v: close code %d", r, r.Close)
		}
		if len(r.Reason) > 123 || labels[r.label] {
			t.Errorf("%v: too long for a close frame, or label %q twice", r, r.label)
		}
		labels[r.label] = true
	}
}

// TestNothingLeaks: no part of a token and no secret is in any log line or error.
func TestNothingLeaks(t *testing.T) {
	var out bytes.Buffer
	v, err := New(Options{
		HS256Secret: []byte(secret), JWKSURL: "http://user:hunter2@127.0.0.1:1/keys?apikey=hunter3",
		Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	failures := 0
	v.remote.round(context.Background(), &failures) // nobody listens there: fails
	token := sign(t, jwt.SigningMethodHS256, []byte(secret), map[string]any{"kid": "my-kid"}, claims(jwt.MapClaims{"exp": 1}))
	_, err = v.Verify(context.Background(), token)
	text := out.String() + err.Error()
	if failures != 1 || !strings.Contains(text, "127.0.0.1:1") {
		t.Errorf("the failed fetch is not in the log: %s", text)
	}
	for _, s := range append(strings.Split(token, "."), secret, "hunter2", "hunter3", "my-kid", "u1001") {
		if strings.Contains(text, s) {
			t.Errorf("%q leaked into %s", s, text)
		}
	}
}

func FuzzVerify(f *testing.F) {
	v, err := New(Options{HS256Secret: []byte(secret), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290IiwiZXhwIjo5OTk5OTk5OTk5fQ.")
	f.Add("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb290IiwiZXhwIjo5OTk5OTk5OTk5fQ.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := v.Verify(context.Background(), token); err == nil {
			t.Fatalf("a made-up token is accepted for %v", id.User)
		}
	})
}

// TestClaimNames: encoding/json matches names in any case and lets the last of several
// win, which would let a claim that the issuer copies from a user replace another.
func TestClaimNames(t *testing.T) {
	v := newVerifier(t, Options{HS256Secret: []byte(secret), Issuer: "i"})
	later, past := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), "1"
	tail := `"iss":"i","exp":` + later + `}`
	for _, c := range []struct {
		payload string
		user    string
		want    *Refusal
	}{
		{`{"sub":"jw",` + tail, "jw", nil},
		{`{"SUB":"victim","sub":"jw","SUB":"victim",` + tail, "jw", nil},
		{`{"sub":"jw","ſub":"victim",` + tail, "jw", nil},
		{`{"sub":"jw","iss":"i","ISS":"x","Exp":` + past + `,"exp":` + later + `,"EXP":` + past + `,"NBF":9e9}`, "jw", nil},
		{`{"\u0073ub":"jw",` + tail, "jw", nil},
		{`{"sub":"jw","other":1,"other":{"sub":"victim"},` + tail, "jw", nil},
		{`{"sub":"\ud83d\ude00",` + tail, "=F0=9F=98=80", nil},

		{`{"SUB":"victim",` + tail, "", ErrSubject},
		{`{"sub":"jw","iss":"i","exp":` + past + `,"EXP":` + later + `}`, "", ErrExpired},
		{`{"sub":"jw","iss":"i","EXP":` + later + `}`, "", ErrNoExpiry},
		{`{"sub":"jw","iss":"x","Iss":"i","exp":` + later + `}`, "", ErrIssuer},
		{`{"sub":"jw","sub":"victim",` + tail, "", ErrMalformed},
		{`{"sub":"jw","\u0073ub":"victim",` + tail, "", ErrMalformed},
		{`{"sub":"jw","sub":null,` + tail, "", ErrMalformed},
		{`{"sub":"jw","exp":` + past + `,` + tail, "", ErrMalformed},
		{`{"sub":"jw","iss":"x",` + tail, "", ErrMalformed},
		{`{"sub":"jw","aud":"a","aud":"b",` + tail, "", ErrMalformed},
		{`{"sub":"jw","nbf":1,"nbf":1,` + tail, "", ErrMalformed},
		{"{\"sub\":\"j\xffw\"," + tail, "", ErrMalformed},
		{"{\"sub\":\"jw\",\"name\":\"\xed\xa0\x80\"," + tail, "", ErrMalformed},
		{`{"sub":"\ud800",` + tail, "", ErrSubject},
		{`{"sub":"j\udc00w",` + tail, "", ErrSubject},
		{`{"sub":"j�w",` + tail, "", ErrSubject},
		{`null`, "", ErrIssuer},
		{`["sub","jw"]`, "", ErrMalformed},
		{`{"sub":["jw"],` + tail, "", ErrMalformed},
	} {
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(c.payload))
		sig, err := jwt.SigningMethodHS256.Sign(head, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		id, err := v.Verify(context.Background(), head+"."+base64.RawURLEncoding.EncodeToString(sig))
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) || id.User.String() != c.user {
			t.Errorf("%q: %q, %v, want %q, %v", c.payload, id.User, err, c.user, c.want)
		}
	}
}
