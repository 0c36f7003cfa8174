package subject_test

import (
	"strings"
	"testing"

	"github.com/wirepost/wirepost/shared/subject"
)

func TestPlain(t *testing.T) {
	for _, s := range []string{"a", "Z9_-", "edge-7d9c5b6f4-x2k9p", strings.Repeat("x", 64)} {
		if !subject.Plain(s, 64) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", "a.b", "a b", "*", ">", "ü", "a\n", "=41", strings.Repeat("x", 65)} {
		if subject.Plain(s, 64) {
			t.Errorf("%q is taken", s)
		}
	}
}
