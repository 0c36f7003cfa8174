package servers

import (
	"strings"
	"testing"
)

func TestDatabaseOfAnAddress(t *testing.T) {
	for base, want := range map[string][2]string{
		"mongodb://127.0.0.1:1/":                       {"mongodb://127.0.0.1:1/wp_", "?"},
		"mongodb://127.0.0.1:1":                        {"mongodb://127.0.0.1:1/wp_", "?"},
		"mongodb://u:p@a:1,b:2/other?replicaSet=r&x=/": {"mongodb://u:p@a:1,b:2/wp_", "?replicaSet=r&x=/"},
	} {
		got := database(t, base)
		if !strings.HasPrefix(got, want[0]) || !strings.HasSuffix(got, want[1]) || len(got) != len(want[0])+12+len(want[1]) {
			t.Errorf("%s became %s", base, got)
		}
	}
}
