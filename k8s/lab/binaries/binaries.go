// Package binaries builds the programs of the rehearsal from their Go modules. Which
// versions, the go.mod files in versions/ say: one for each product, because together they
// would lift each other's dependencies, and outside of the workspace and of CI, which need
// none of them.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
)

// product is what one module gives.
type product struct {
	folder   string // with the go.mod, below the repository
	module   string // whose version is the product's
	stamps   func(version string) []string
	packages map[string]string // package by program
}

var products = []product{
	{folder: "k8s/lab/versions/etcd", module: "go.etcd.io/etcd/server/v3", packages: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}},
	{folder: "k8s/lab/versions/kubernetes", module: "k8s.io/kubernetes", stamps: kubernetesStamps, packages: map[string]string{
		"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
		"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
		"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	}},
	{folder: "k8s/lab/versions/kwok", module: "sigs.k8s.io/kwok", packages: map[string]string{"kwok": "sigs.k8s.io/kwok/cmd/kwok"}},
	{folder: "k8s/lab/versions/keda", module: "github.com/kedacore/keda/v2", stamps: kedaStamps, packages: map[string]string{
		"keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
		"keda-adapter":  "github.com/kedacore/keda/v2/cmd/adapter",
		"keda-webhooks": "github.com/kedacore/keda/v2/cmd/webhooks",
	}},
	{folder: "scripts", module: "github.com/nats-io/nats-server/v2", packages: map[string]string{"nats-server": "github.com/nats-io/nats-server/v2"}},
}

// kubernetesStamps: without them the programs take themselves for version 0.0.0, and
// refuse to work with each other.
func kubernetesStamps(version string) (stamps []string) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		stamps = append(stamps, pkg+".gitVersion="+version, pkg+".gitMajor="+parts[0], pkg+".gitMinor="+parts[1])
	}
	return stamps
}

func kedaStamps(version string) []string {
	return []string{"github.com/kedacore/keda/v2/version.Version=" + strings.TrimPrefix(version, "v")}
}

// Build compiles what is missing in dir or was made of other versions; root is the
// repository. What it does, it says on out.
func Build(ctx context.Context, root, dir string, out io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range products {
		version, sum, err := p.version(root)
		if err != nil {
			return err
		}
		for program, pkg := range p.packages {
			if err := p.build(ctx, root, dir, program, pkg, version, sum, out); err != nil {
				return fmt.Errorf("build %s: %w", program, err)
			}
		}
	}
	return nil
}

// version returns the version of the product, and what identifies all that it is made of.
func (p product) version(root string) (version, sum string, err error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version())
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, p.folder, name))
		if err != nil {
			return "", "", err
		}
		hash.Write(text)
		if name == "go.mod" {
			if version, err = required(text, p.module); err != nil {
				return "", "", fmt.Errorf("%s: %w", p.folder, err)
			}
		}
	}
	return version, hex.EncodeToString(hash.Sum(nil)), nil
}

// required returns the version of a module that a go.mod asks for.
func required(gomod []byte, module string) (string, error) {
	f, err := modfile.ParseLax("go.mod", gomod, nil)
	if err != nil {
		return "", err
	}
	for _, r := range f.Require {
		if r.Mod.Path == module {
			return r.Mod.Version, nil
		}
	}
	return "", errors.New("it does not ask for " + module)
}

func (p product) build(ctx context.Context, root, dir, program, pkg, version, sum string, out io.Writer) error {
	binary, key := filepath.Join(dir, program), filepath.Join(dir, program+".made-of")
	flags := "-s -w"
	if p.stamps != nil {
		for _, stamp := range p.stamps(version) {
			flags += " -X " + stamp
		}
	}
	want := sum + " " + pkg + " " + flags
	if have, err := os.ReadFile(key); err == nil && string(have) == want {
		if _, err := os.Stat(binary); err == nil {
			return nil
		}
	}
	fmt.Fprintf(out, "building %s %s …\n", program, version)
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", flags, "-o", binary, pkg)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(root, p.folder), out, out
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return err
	}
	fmt.Fprintf(out, "built %s in %.0f s\n", program, time.Since(began).Seconds())
	return os.WriteFile(key, []byte(want), 0o644)
}

// Sources are the folders of modules whose manifests the rehearsal applies.
type Sources struct{ KEDA, Gateway, Kwok string }

// FindSources downloads the modules, if need be. The Gateway API is that against which
// k8s/test reads the manifests.
func FindSources(ctx context.Context, root string) (s Sources, err error) {
	for _, m := range []struct {
		dir            *string
		folder, module string
	}{
		{&s.KEDA, "k8s/lab/versions/keda", "github.com/kedacore/keda/v2"},
		{&s.Kwok, "k8s/lab/versions/kwok", "sigs.k8s.io/kwok"},
		{&s.Gateway, "k8s/test", "sigs.k8s.io/gateway-api"},
	} {
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.module)
		cmd.Dir, cmd.Stderr = filepath.Join(root, m.folder), os.Stderr
		cmd.Env = append(os.Environ(), "GOWORK=off")
		text, err := cmd.Output()
		if err != nil {
			return s, fmt.Errorf("download %s: %w", m.module, err)
		}
		var info struct{ Dir string }
		if err := json.Unmarshal(text, &info); err != nil {
			return s, err
		}
		*m.dir = info.Dir
	}
	return s, nil
}
