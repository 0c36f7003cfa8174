package streams_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

type starter struct{}
type ns struct{ s *server.Server }

var servers starter

func (starter) NATS(t testing.TB) ns {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.ReadyForConnections(5 * time.Second)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return ns{s}
}
func (n ns) Conn(t testing.TB) *nats.Conn {
	nc, err := nats.Connect(n.s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
