// Command lab rehearses k8s/ on a real control plane: make k8s-verify.
//
// It builds etcd, Kubernetes, kwok and KEDA from their Go modules, once; starts itself
// again in namespaces that have no network but loopback; applies the production overlay as it
// is; runs the real program of each pod; and watches the numbers of workers and edges follow
// what waits and what is connected. It exits with 0 when everything was reached.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/wirepost/wirepost/k8s/lab/binaries"
	"github.com/wirepost/wirepost/k8s/lab/box"
	"github.com/wirepost/wirepost/k8s/lab/rehearsal"
)

type flags struct {
	root, cache, mongod, prometheus string
	buildOnly                       bool
}

func main() {
	var f flags
	flag.StringVar(&f.root, "root", ".", "folder of the repository, with bin/edge, bin/worker and bin/natssetup")
	flag.StringVar(&f.cache, "cache", ".cache/k8s-lab", "folder for what is built (0.5 GB) and for the last run with its logs")
	flag.StringVar(&f.mongod, "mongod", "mongod", "MongoDB server")
	flag.StringVar(&f.prometheus, "prometheus", "prometheus", "Prometheus server; Debian's and Ubuntu's package prometheus has it")
	flag.BoolVar(&f.buildOnly, "build", false, "only build")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	given, inside := box.Inside()
	err := f.paths()
	switch {
	case err != nil:
	case inside:
		err = f.rehearse(ctx, given)
	default:
		err = f.outside(ctx)
	}
	if errors.Is(err, box.ErrFailed) {
		os.Exit(1) // what is inside has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s-verify:", err)
		os.Exit(1)
	}
}

// paths makes them absolute, and fails when a tool is missing.
func (f *flags) paths() error {
	for _, path := range []*string{&f.root, &f.cache} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if f.buildOnly {
		return nil
	}
	for _, tool := range []struct {
		path *string
		hint string
	}{{&f.mongod, "make mongod"}, {&f.prometheus, "apt-get install prometheus"}} {
		path, err := exec.LookPath(*tool.path)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return fmt.Errorf("%w (%s)", err, tool.hint)
		}
		*tool.path = path
	}
	return nil
}

// run is the folder of the last run.
func (f *flags) run() string { return filepath.Join(f.cache, "run") }

func (f *flags) programs() string { return filepath.Join(f.cache, "bin") }

// etc are the files that replace those of /etc inside.
func (f *flags) etc() map[string]string {
	return map[string]string{"hosts": filepath.Join(f.run(), "hosts"), "resolv.conf": filepath.Join(f.run(), "resolv.conf")}
}

// outside does what needs the network, and starts the rest without it.
func (f *flags) outside(ctx context.Context) error {
	if err := binaries.Build(ctx, f.root, f.programs(), os.Stdout); err != nil || f.buildOnly {
		return err
	}
	sources, err := binaries.FindSources(ctx, f.root)
	if err != nil {
		return err
	}
	given, err := json.Marshal(sources)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(f.run()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(f.run(), "logs"), 0o755); err != nil {
		return err
	}
	for _, path := range f.etc() { // an empty resolv.conf: nobody is asked for names
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	return box.Run(string(given))
}

func (f *flags) rehearse(ctx context.Context, given string) error {
	o := rehearsal.Options{Overlays: filepath.Join(f.root, "k8s/overlays"), Programs: f.programs(),
		Edge: filepath.Join(f.root, "bin/edge"), Worker: filepath.Join(f.root, "bin/worker"), Setup: filepath.Join(f.root, "bin/natssetup"),
		Mongod: f.mongod, Prometheus: f.prometheus, Hosts: f.etc()["hosts"], Dir: f.run(), Out: os.Stdout}
	if err := json.Unmarshal([]byte(given), &o.Sources); err != nil {
		return err
	}
	if err := box.Prepare(f.etc()); err != nil {
		return err
	}
	said, err := os.Create(filepath.Join(f.run(), "logs", "client-go.log"))
	if err != nil {
		return err
	}
	defer said.Close()
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(said, nil)))
	if err := rehearsal.Run(ctx, o); err != nil {
		return fmt.Errorf("%w\n(logs are in %s)", err, filepath.Join(f.run(), "logs"))
	}
	fmt.Println("everything was reached")
	return nil
}
