// Command edge is the gateway: it holds WebSockets and relays their frames over NATS.
//
// It is configured by environment variables, see README.md.
package main

import (
	"context"
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
		Log:   func(c edge.Config) process.LogOptions { return c.Log },
		Admin: func(c edge.Config) string { return c.AdminListen },
		Run:   run,
	}.Main())
}

func run(ctx context.Context, cfg edge.Config, log *slog.Logger) error {
	process.FollowCgroup()
	deps := edge.Deps{Log: log, Registry: admin.NewRegistry()}
	for _, at := range []struct {
		variable, addr string
		ln             *net.Listener
	}{
		{"LISTEN", cfg.Listen, &deps.Listener},
		{"ADMIN_LISTEN", cfg.AdminListen, &deps.AdminListener},
		{"PROXY_LISTEN", cfg.Proxies.ProxyListen, &deps.ProxyListener},
	} {
		if at.addr == "" {
			continue
		}
		var err error
		if *at.ln, err = net.Listen("tcp", at.addr); err != nil {
			return fmt.Errorf("%s: %w", at.variable, err) // the process ends, and with it what is open
		}
	}
	return edge.New(cfg, deps).Run(ctx)
}
