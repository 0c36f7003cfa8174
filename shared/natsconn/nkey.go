package natsconn

import (
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// nkey returns the option that signs in with the user's seed in file. The file is read
// once: while keys are rotated it holds the next seed already, and a reconnect must go on
// with the key that this process began with, which the servers take until it is retired.
func nkey(file string) (nats.Option, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pair, err := nkeys.ParseDecoratedUserNKey(text)
	clear(text)
	if err != nil {
		return nil, fmt.Errorf("nkey seed in %s: %w", file, err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("nkey seed in %s: %w", file, err)
	}
	return nats.Nkey(public, pair.Sign), nil
}
