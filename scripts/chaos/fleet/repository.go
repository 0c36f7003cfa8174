package fleet

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Repository returns the root of the checkout that the program was started in.
func Repository() (string, error) {
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
