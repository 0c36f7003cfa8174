// Package checkout tells where the repository is that a tool was started in, and which
// commit of it. Tools and tests find what is shipped (k8s/) by it.
package checkout

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Root returns the root folder of the checkout that the program was started in.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOWORK").Output()
	work := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(work) != "go.work" {
		return "", fmt.Errorf("start it inside of the checkout, as make does: go env GOWORK says %q", work)
	}
	return filepath.Dir(work), nil
}

// Version returns the commit of that checkout.
func Version() string {
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
