package streams_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/servers"
)

func TestMain(m *testing.M) { servers.Main(m, func() error { return goleak.Find() }) }
