package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a run takes in bytes, as measured with 20,000 and with 100,000 connections.
const (
	perConnection = 14 << 10  // at rest; the kernel's two sockets are some 8 KiB of it
	perMessage    = 7 << 10   // in NATS and in the store, up to
	allMessages   = 7 << 29   // 3.5 GiB: what the downlink's limit and the store's cache allow
	perProcess    = 20 << 20  // each edge and each client
	base          = 512 << 20 // NATS, the store and the worker, without connections
)

// memory is what a plan needs.
func memory(p plan) int64 {
	n := int64(p.n)
	return n*perConnection + min(n*perMessage, allMessages) + int64(p.edges+p.clients)*perProcess + base
}

// fact is one thing that a run needs of the machine.
type fact struct {
	what       string
	need, have int64
	fix        string
}

// facts looks at the machine. What it cannot read it leaves out: then nothing limits it.
func facts(p plan) []fact {
	mib := func(n int64) int64 { return n >> 20 }
	all := []fact{{"MiB of memory", mib(memory(p)), mib(available()), "use a smaller N"}}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		all = append(all, fact{"descriptors in a process", int64(max(p.perEdge+edgeDescriptors, p.perClient+clientDescriptors)),
			int64(min(r.Max, 1<<40)), "raise ulimit -Hn, or lower -per-process"})
	}
	if f := fields("/proc/sys/fs/file-nr"); len(f) == 3 {
		all = append(all, fact{"open files of the system", int64(2*p.n) + 10_000, f[2] - f[0], "raise fs.file-max"})
	}
	if most := fields("/proc/sys/net/netfilter/nf_conntrack_max"); len(most) == 1 && tracked() {
		all = append(all, fact{"entries of conntrack", int64(p.n), most[0] - conntracked(), "raise net.netfilter.nf_conntrack_max"})
	}
	if f := fields("/proc/sys/net/ipv4/ip_local_port_range"); len(f) == 2 {
		const addresses = 254 * 256 // of 127.1.0.0/16, from which clients come
		all = append(all, fact{"pairs of address and port to an edge", int64(p.perEdge), (f[1] - f[0] + 1) * addresses, "widen net.ipv4.ip_local_port_range"})
	}
	return all
}

// conntracked is how many connections the kernel tracks.
func conntracked() int64 {
	if n := fields("/proc/sys/net/netfilter/nf_conntrack_count"); len(n) == 1 {
		return n[0]
	}
	return 0
}

// tracked reports whether the kernel tracks connections of the loopback: it does so only
// when a rule of the firewall asks for it.
func tracked() bool {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return true
	}
	defer func() { _ = l.Close() }()
	before := conntracked()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return true
	}
	defer func() { _ = c.Close() }()
	return conntracked() > before
}

var errMachine = errors.New("this machine cannot hold that many")

// check prints what is needed and what is there, and fails when that is less.
func check(all []fact, out io.Writer) error {
	var err error
	for _, f := range all {
		verdict := "enough"
		if f.have < f.need {
			verdict = "TOO LITTLE: " + f.fix
			err = errMachine
		}
		fmt.Fprintf(out, "  %-40s needs %12d, there are %12d: %s\n", f.what, f.need, f.have, verdict)
	}
	return err
}

// available is how much memory may still be used, in bytes: of the machine, or of the
// control group when that allows less.
func available() int64 {
	var free int64
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			free = kib << 10
		}
	}
	most, used := fields("/sys/fs/cgroup/memory.max"), fields("/sys/fs/cgroup/memory.current")
	if len(most) == 1 && len(used) == 1 {
		free = min(free, most[0]-used[0])
	}
	return free
}

// fields reads a file of numbers, nil when there is none.
func fields(file string) (all []int64) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for _, s := range strings.Fields(string(b)) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil
		}
		all = append(all, n)
	}
	return all
}
