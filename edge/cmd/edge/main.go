// Command edge is the gateway: it holds WebSockets and relays their frames over NATS.
//
// It is configured by environment variables, see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/process"
)

func main() {
	os.Exit(process.Program[edge.Config]{
		Name:  "wirepost-edge",
		Load:  func() (edge.Config, error) { return edge.LoadConfig(nil) },
		Log:   func(c edge.Config) process.LogOptions { return c.Log.Options() },
		Admin: func(c edge.Config) string { return c.AdminListen },
		Run:   run,
	}.Main())
}

func run(ctx context.Context, cfg edge.Config, log *slog.Logger) error {
	process.FollowCgroup()
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	adm, err := net.Listen("tcp", cfg.AdminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("ADMIN_LISTEN: %w", err), ln.Close())
	}
	return edge.New(cfg, edge.Deps{Log: log, Registry: admin.NewRegistry(), Listener: ln, AdminListener: adm}).Run(ctx)
}
