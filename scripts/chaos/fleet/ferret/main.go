// Command ferret is FerretDB over SQLite as a process of its own, which can be killed.
//
//	ferret -addr 127.0.0.1:27017 -dir .data/ferret
//
// It ends with SIGTERM or an interrupt.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/wirepost/wirepost/scripts/servers"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:27017", "where to listen")
	dir := flag.String("dir", "", "folder of the data, made if it is missing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "ferret:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr, dir string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	uri, end, err := servers.StartFerret(context.WithoutCancel(ctx), dir)
	if err != nil {
		return err
	}
	defer end()
	to, err := url.Parse(uri)
	if err != nil {
		return fmt.Errorf("address of FerretDB: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	forward(l, to.Host)
	return nil
}

// forward connects whoever comes to FerretDB, which chooses its own port, until l is
// closed.
func forward(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = in.Close() }()
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer func() { _ = out.Close() }()
			var back sync.WaitGroup
			back.Go(func() {
				_, _ = io.Copy(in, out)
				_ = in.Close()
			})
			_, _ = io.Copy(out, in)
			_ = out.Close()
			back.Wait()
		}()
	}
}
