package nginx

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wirepost/wirepost/scripts/checkout"
)

// Need returns the path of nginx and the shipped folder. Without nginx the test is
// skipped, but in CI, which installs it, it fails.
func Need(t testing.TB) (program, shipped string) {
	t.Helper()
	program, err := Find()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	return program, filepath.Join(root, "k8s", "nginx")
}
