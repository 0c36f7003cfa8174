package fleet

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/wirepost/wirepost/scripts/servers"
)

// Binaries are the paths of the programs that a fleet runs.
type Binaries struct {
	Edge, Worker, NATS string
	Ferret             string // "" unless it was asked for
	Mongod             string // "" when there is none, see servers.FindMongod
}

// BuildOptions say how to build. The zero value is what users run, without FerretDB.
type BuildOptions struct {
	Ferret        bool   // build FerretDB as well
	WorkerOverlay string // a file for go build -overlay, which replaces source files; "": none
}

// Build compiles the programs into dir; root is the repository's folder. A mongod is
// looked for, not built.
func Build(ctx context.Context, root, dir string, o BuildOptions) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, fmt.Errorf("build: %w", err)
	}
	var b Binaries
	for _, p := range []struct {
		path    *string
		name    string
		pkg     string
		overlay string
		skip    bool
	}{
		{&b.Edge, "edge", "github.com/wirepost/wirepost/edge/cmd/edge", "", false},
		{&b.Worker, "worker", "github.com/wirepost/wirepost/worker/cmd/worker", o.WorkerOverlay, false},
		{&b.NATS, "nats-server", "github.com/nats-io/nats-server/v2", "", false},
		{&b.Ferret, "ferret", "github.com/wirepost/wirepost/scripts/chaos/fleet/ferret", "", !o.Ferret},
	} {
		if p.skip {
			continue
		}
		*p.path = filepath.Join(dir, p.name)
		if err := build(ctx, filepath.Join(root, "scripts"), *p.path, p.pkg, p.overlay); err != nil {
			return Binaries{}, err
		}
	}
	b.Mongod, err = servers.FindMongod()
	if err != nil && !errors.Is(err, servers.ErrNoMongod) {
		return Binaries{}, fmt.Errorf("find mongod: %w", err)
	}
	return b, nil
}

func build(ctx context.Context, folder, path, pkg, overlay string) error {
	args := []string{"build", "-buildvcs=false", "-o", path}
	if overlay != "" {
		file, err := filepath.Abs(overlay)
		if err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
		args = append(args, "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
