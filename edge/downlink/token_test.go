package downlink

import (
	"strings"
	"testing"
)

func TestTokenRoundTrip(t *testing.T) {
	for _, want := range []Token{NewToken("k3x9", 0, 1), NewToken("abcdefgh01234567", 1023, 1<<64-1)} {
		b := want.AppendTo(nil)
		if len(b) > maxToken {
			t.Errorf("%s is longer than %d bytes", b, maxToken)
		}
		in, seq, ok := parseToken(string(b))
		if got := NewToken(in.epoch, in.shard, seq); !ok || got != want {
			t.Errorf("parseToken(%s) = %v, %v", b, got, ok)
		}
	}
	if b := (Token{}).AppendTo(nil); len(b) != 0 || !(Token{}).IsZero() {
		t.Errorf("the zero token is %q", b)
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for _, s := range []string{"", ".", "..", "a.0", "a.0.", ".0.1", "a.00.1", "a.0.01", "a.-1.1", "a.0.+1", "a.0.1.", "a.0.1.2", "a.0.x",
		"a.99999999999.1", "a.0.99999999999999999999", "a.0.1 ", strings.Repeat("a", 64) + ".0.1"} {
		if in, seq, ok := parseToken(s); ok {
			t.Errorf("parseToken(%q) = %v, %d", s, in, seq)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{"", "k3x9.0.1", "a.00.1", "a.0.18446744073709551615", "a..", `".0.1`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, seq, ok := parseToken(s)
		if !ok {
			return
		}
		if got := NewToken(in.epoch, in.shard, seq).String(); got != s {
			t.Errorf("parseToken(%q) reads %q", s, got)
		}
	})
}

func TestWithResume(t *testing.T) {
	got := string(withResume([]byte(`{"msgType":3}`), NewToken("k3x9", 2, 17)))
	if want := `{"resume":"k3x9.2.17","msgType":3}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for s, want := range map[string]bool{`{"a":1}`: true, `{}`: false, ``: false, `{`: false, `{ "a":1}`: false, `["a"]`: false, "\x00\x01\x02": false} {
		if sendable([]byte(s)) != want {
			t.Errorf("sendable(%q) = %v", s, !want)
		}
	}
}
