// Command natssetup makes the keys and certificates that the NATS configuration in
// k8s/nats needs, in a folder whose files Kubernetes secrets are made of:
//
//	go run ./scripts/natssetup -dir secrets init            everything that is missing
//	go run ./scripts/natssetup -dir secrets certificate     a new certificate of the servers: for the
//	                                                        names of the one before, if no flag names others
//	go run ./scripts/natssetup -dir secrets rotate edge     clients change to the role's next key
//	go run ./scripts/natssetup -dir secrets retire edge     servers refuse the key before it
//
// docs/security.md tells what each role may do and when to run which command.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "natssetup:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("the command is init, certificate, rotate <role> or retire <role>")

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("natssetup", flag.ContinueOnError)
	dir := flags.String("dir", "secrets", "the folder; keep it out of version control")
	namespace := flags.String("namespace", "wirepost", "the Kubernetes namespace, for the names in a certificate")
	hosts := flags.String("hosts", "", "more names and addresses of the servers in a certificate, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	d := setup.Dir(*dir)
	names := setup.Hosts(*namespace)
	if *hosts != "" {
		names = append(names, strings.Split(*hosts, ",")...)
	}
	switch command, role := flags.Arg(0), flags.Arg(1); {
	case command == "init" && flags.NArg() == 1:
		if err := d.Init(names); err != nil {
			return err
		}
		fmt.Fprintln(out, "keys and certificates are in", *dir)
	case command == "certificate" && flags.NArg() == 1:
		if !given(flags, "namespace", "hosts") {
			names = nil // those of the certificate before
		}
		if err := d.Certificate(names); err != nil {
			return err
		}
		fmt.Fprintln(out, "new certificate of the servers; apply the secret and reload them: it holds for a year")
	case command == "rotate" && flags.NArg() == 2:
		if err := d.Rotate(role); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s/nkey.seed is the next key, which the servers take already: apply the secret, restart the pods, then retire the old one\n", role)
	case command == "retire" && flags.NArg() == 2:
		if err := d.Retire(role); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s has no old key and a new next one: apply %s and reload the servers, which cuts whoever uses the old one\n", setup.KeysFile, role)
	default:
		return errUsage
	}
	return nil
}

// given reports whether one of the flags is on the command line.
func given(flags *flag.FlagSet, names ...string) (is bool) {
	flags.Visit(func(f *flag.Flag) { is = is || slices.Contains(names, f.Name) })
	return is
}
