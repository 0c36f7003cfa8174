// Command rehearsal plays production on one machine, without containers: nginx before two
// edges, three nats-servers, two workers, and a MongoDB replica set of three, with the
// configurations that are shipped in k8s/. While users talk it does what operators do:
//
//	go run ./scripts/rehearsal            everything, some 4 minutes
//	go run ./scripts/rehearsal -short     one of each kind, a minute
//
// First it replaces every part, one by one and gently (roll.go): edges drain, workers give
// their lanes back, nats-servers are lame ducks, the primary of the store steps down, nginx
// reads its configuration anew; workers and edges come back with twice the lanes. Then it
// lets more come than a worker can do, and starts and stops workers by the rules of the
// autoscaler that is shipped (scale.go, package autoscaler).
//
// It prints what clients felt of each step, and ends with exit status 1 when a message was
// lost, doubled or out of order (package check of scripts/chaos judges what each client did
// and saw), when a connection was lost that need not be, or when the number of workers did
// not follow the lag.
//
// Everything listens on loopback, and ends with this process. It needs a mongod and nginx.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wirepost/wirepost/scripts/chaos/fleet"
	"github.com/wirepost/wirepost/scripts/checkout"
	"github.com/wirepost/wirepost/scripts/load/nginx"
	"github.com/wirepost/wirepost/scripts/servers"
)

// options are the flags.
type options struct {
	short bool
	keep  string
	seed  uint64
	bin   fleet.Binaries // the zero value: they are built
}

func main() {
	var o options
	flag.BoolVar(&o.short, "short", false, "one edge, one worker, one nats-server, the primary; quicker scaling")
	flag.StringVar(&o.keep, "keep", "", "folder for histories and logs, which are kept; otherwise only those of a failure are")
	flag.Uint64Var(&o.seed, "seed", 1, "of the load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if err := o.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rehearsal:", err)
		os.Exit(1)
	}
}

// errBroken is returned when a promise was not kept; what it was has been printed.
var errBroken = errors.New("not everything went as promised")

const (
	within      = 7 * time.Minute // of everything; it takes some four
	startWithin = time.Minute     // of the fleet
)

// run is one rehearsal. Its folder is removed when all went well.
func (o *options) run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	if err := o.need(); err != nil {
		return err
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "wirepost-rehearsal-"); err != nil {
			return err
		}
	}
	defer func() {
		switch {
		case o.keep != "":
		case err != nil:
			fmt.Fprintln(out, "histories and logs are in", dir)
		default:
			err = os.RemoveAll(dir)
		}
	}()
	if o.bin == (fleet.Binaries{}) {
		fmt.Fprintln(out, "building")
		if o.bin, err = fleet.Build(ctx, root, filepath.Join(dir, "bin"), fleet.BuildOptions{}); err != nil {
			return err
		}
	}
	r := &rehearsal{o: o, out: out, dir: dir, k8s: filepath.Join(root, "k8s"), began: time.Now()}
	return r.play(ctx)
}

// need reports what this machine lacks.
func (o *options) need() error {
	_, err := nginx.Find()
	if _, merr := servers.FindMongod(); merr != nil {
		err = errors.Join(err, merr)
	}
	return err
}
