package userid_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wirepost/wirepost/shared/userid"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		raw, token string
		err        error
	}{
		{"u1001", "u1001", nil},
		{"Ann_B-9", "Ann_B-9", nil},
		{"*", "=2A", nil},
		{">", "=3E", nil},
		{"a.b", "a=2Eb", nil},
		{"a/b", "a=2Fb", nil},
		{"a b", "a=20b", nil},
		{"=2A", "=3D2A", nil},
		{"😀", "=F0=9F=98=80", nil},
		{"", "", userid.ErrEmpty},
		{strings.Repeat("x", 128), strings.Repeat("x", 128), nil},
		{strings.Repeat("x", 129), "", userid.ErrTooLong},
		{strings.Repeat("x", 300), "", userid.ErrTooLong},
		{"\xff", "", userid.ErrNotUTF8},
	} {
		id, err := userid.Parse(c.raw)
		if !errors.Is(err, c.err) {
			t.Errorf("Parse(%q): error %v, want %v", c.raw, err, c.err)
			continue
		}
		if id.Token() != c.token {
			t.Errorf("Parse(%q).Token() = %q, want %q", c.raw, id.Token(), c.token)
		}
		if err == nil && id.Raw() != c.raw {
			t.Errorf("Parse(%q).Raw() = %q", c.raw, id.Raw())
		}
	}
}

func TestFromTokenRefusesOtherSpellings(t *testing.T) {
	for _, token := range []string{"", "=2a", "=61", "a.b", "*", ">", "a=", "a=2", "=FF", "a b", "=G0"} {
		if id, err := userid.FromToken(token); err == nil {
			t.Errorf("FromToken(%q) = %v, want an error", token, id)
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"u1", "a.b", "=", "=2A", "😀", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		id, err := userid.Parse(raw)
		if err != nil {
			if utf8.ValidString(raw) && raw != "" && len(raw) <= userid.MaxRawBytes {
				t.Fatalf("Parse(%q) refused a valid id: %v", raw, err)
			}
			return
		}
		if strings.ContainsAny(id.Token(), ".*> /\t\r\n:") {
			t.Fatalf("token %q is not one subject token", id.Token())
		}
		again, err := userid.FromToken(id.Token())
		if err != nil || again != id || again.Raw() != raw {
			t.Fatalf("FromToken(%q) = %v, %v", id.Token(), again, err)
		}
	})
}
