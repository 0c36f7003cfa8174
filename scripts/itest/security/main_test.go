// Package security_test runs the NATS configuration of k8s/nats, loaded by nats-server's
// own parser, and holds the system to it: the real edge, worker and client work under its
// rights without a single violation, and no role may do more than the code needs.
package security_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" { // this process is a worker
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	servers.Main(m, func() error { return goleak.Find() })
}
