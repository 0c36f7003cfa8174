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

	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/worker"
)

func main() {
	os.Exit(process.Program[worker.Config]{
		Name: "wirepost-worker",
		Load: func() (worker.Config, error) { return worker.LoadConfig(nil) },
		Log:  func(c worker.Config) process.LogOptions { return c.Log.Options() },
		Run:  run,
	}.Main())
}

func run(ctx context.Context, cfg worker.Config, log *slog.Logger) error {
	adm, err := net.Listen("tcp", cfg.AdminListen)
	if err != nil {
		return fmt.Errorf("ADMIN_LISTEN: %w", err)
	}
	return worker.New(cfg, worker.Deps{Log: log, Registry: admin.NewRegistry(), AdminListener: adm}).Run(ctx)
}
