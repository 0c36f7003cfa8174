package gen

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/wirepost/wirepost/scripts/bench/proc"
)

// Driver is a generator as its owner sees it: a process that does one command after the
// other.
type Driver struct {
	*proc.Process
	out *json.Decoder
}

// The variables that a generator's process gets: what is secret stands on no command line.
const (
	envSecret = "BENCH_SECRET"
	envNATS   = "BENCH_NATS"
)

// Main is a generator's process: args are those behind `bench load`.
func Main(args []string) error {
	if len(args) != 4 {
		return errArgs
	}
	conns, err := strconv.Atoi(args[2])
	if err != nil {
		return errArgs
	}
	devices, err := strconv.Atoi(args[3])
	if err != nil {
		return errArgs
	}
	return Run(Options{Dialect: args[0], URL: args[1], Conns: conns, Devices: devices,
		Secret: os.Getenv(envSecret), NATS: os.Getenv(envNATS)}, os.Stdin, os.Stdout)
}

var errArgs = errors.New("usage: bench load <dialect> <url> <connections> <devices>")

// Start starts `bench load` for o; self is the path of this program. The caller ends it
// with Kill.
func Start(self string, o Options) (*Driver, error) {
	p, err := proc.Start(proc.Spec{Name: "load generator", Bin: self,
		Pipes: true, Args: []string{"load", o.Dialect, o.URL, strconv.Itoa(o.Conns), strconv.Itoa(o.Devices)},
		Env: []string{envSecret + "=" + o.Secret, envNATS + "=" + o.NATS}})
	if err != nil {
		return nil, err
	}
	return &Driver{Process: p, out: json.NewDecoder(p.Out)}, nil
}

// Do returns what came of a command, when it is done.
func (d *Driver) Do(c Command) (Result, error) {
	line, err := json.Marshal(c)
	if err != nil {
		return Result{}, err
	}
	if _, err := d.In.Write(append(line, '\n')); err != nil {
		return Result{}, errors.Join(fmt.Errorf("tell the load generator: %w", err), d.Err())
	}
	var r Result
	if err := d.out.Decode(&r); err != nil {
		return Result{}, errors.Join(fmt.Errorf("hear from the load generator: %w", err), d.Err())
	}
	if r.Err != "" {
		return r, fmt.Errorf("%s: %s", c.Do, r.Err)
	}
	return r, nil
}
