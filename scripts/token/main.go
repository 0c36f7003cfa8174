// Command token prints a development token for a user, as `make run` accepts it.
//
//	go run ./scripts/token -user alice
//
// It signs with the secret of the folder .data/dev (made on first use), or with
// JWT_HS256_SECRET when that is set. It is no tool for production.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/userid"
)

func main() {
	if err := run(os.Args[1:], os.Getenv(devkeys.Env), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "token:", err)
		os.Exit(1)
	}
}

func run(args []string, secretEnv string, out io.Writer) error {
	flags := flag.NewFlagSet("token", flag.ExitOnError)
	user := flags.String("user", "", "the user's id, 1 to 128 bytes (needed)")
	ttl := flags.Duration("ttl", 24*time.Hour, "how long the token holds")
	dir := flags.String("data", devkeys.Dir, "the data folder of make run; "+devkeys.Env+" overrides its secret")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if _, err := userid.Parse(*user); err != nil {
		return fmt.Errorf("-user: %w", err)
	}
	if *ttl <= 0 {
		return fmt.Errorf("-ttl %v: must be positive", *ttl)
	}
	secret, err := devkeys.Choose(secretEnv, *dir)
	if err != nil {
		return err
	}
	token, err := devkeys.Token(secret, *user, *ttl)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, token)
	return err
}
