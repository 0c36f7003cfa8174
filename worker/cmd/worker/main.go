// Command worker is the backend: it takes what edges relay, stores messages and delivers
// them.
//
// It is configured by environment variables, see README.md.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"

	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/worker"
)

// What GOGC is when it is not set, for Go and for a worker. What lives in a worker is little
// and what it throws away is much: with Go's it would collect many times a second.
const (
	goGCPercent     = 100
	workerGCPercent = 400
)

func main() {
	os.Exit(process.Program[worker.Config]{
		Name:  "wirepost-worker",
		Load:  func() (worker.Config, error) { return worker.LoadConfig(nil) },
		Log:   func(c worker.Config) process.LogOptions { return c.Log },
		Admin: func(c worker.Config) string { return c.AdminListen },
		Run:   run,
	}.Main())
}

func run(ctx context.Context, cfg worker.Config, log *slog.Logger) error {
	process.FollowCgroup()
	if was := debug.SetGCPercent(workerGCPercent); was != goGCPercent {
		debug.SetGCPercent(was) // the operator's
	}
	adm, err := net.Listen("tcp", cfg.AdminListen)
	if err != nil {
		return fmt.Errorf("ADMIN_LISTEN: %w", err)
	}
	return worker.New(cfg, worker.Deps{Log: log, Registry: admin.NewRegistry(), AdminListener: adm}).Run(ctx)
}
