package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// front is where everybody reaches one mongod. The members of a replica set have one
// address each, which is the same for all; so a front asks the kernel which process has
// called, and goes on through the proxy between that process and the mongod. This
// process and the mongod itself are connected directly.
type front struct {
	to   *Process
	l    net.Listener
	done sync.WaitGroup

	mu     sync.Mutex
	ways   map[*Process]*proxy
	conns  map[net.Conn]bool
	closed bool
}

// errCaller is returned when a connection belongs to no process that may use a front.
var errCaller = errors.New("caller is unknown")

func newFront(to *Process) (*front, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("front of %s: %w", to.Name, err)
	}
	fr := &front{to: to, l: l, ways: map[*Process]*proxy{}, conns: map[net.Conn]bool{}}
	fr.done.Go(fr.accept)
	return fr, nil
}

func (fr *front) addr() string { return fr.l.Addr().String() }

// let leads a process through a proxy.
func (fr *front) let(p *Process, through *proxy) {
	fr.mu.Lock()
	fr.ways[p] = through
	fr.mu.Unlock()
}

func (fr *front) close() {
	_ = fr.l.Close()
	fr.mu.Lock()
	fr.closed = true
	for c := range fr.conns {
		_ = c.Close()
	}
	fr.mu.Unlock()
	fr.done.Wait()
}

func (fr *front) accept() {
	for {
		in, err := fr.l.Accept()
		if err != nil {
			return // closed
		}
		fr.done.Go(func() { fr.serve(in) })
	}
}

func (fr *front) serve(in net.Conn) {
	defer fr.drop(in)
	if !fr.keep(in) {
		return
	}
	to, err := fr.wayOf(in)
	if err != nil {
		return // who has called is gone
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer fr.drop(out)
	if !fr.keep(out) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})
	_, _ = io.Copy(out, in)
	_ = out.Close()
	back.Wait()
}

func (fr *front) keep(c net.Conn) bool {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	fr.conns[c] = true
	return !fr.closed
}

func (fr *front) drop(c net.Conn) {
	_ = c.Close()
	fr.mu.Lock()
	delete(fr.conns, c)
	fr.mu.Unlock()
}

// wayOf returns where a connection goes on.
func (fr *front) wayOf(in net.Conn) (addr string, err error) {
	inode, err := inodeOf(in.RemoteAddr().(*net.TCPAddr).Port, in.LocalAddr().(*net.TCPAddr).Port)
	if err != nil {
		return "", err
	}
	if holds(os.Getpid(), inode) || holds(fr.to.PID(), inode) {
		return fr.to.Addr, nil
	}
	fr.mu.Lock()
	defer fr.mu.Unlock()
	for p, way := range fr.ways {
		if holds(p.PID(), inode) {
			return way.addr(), nil
		}
	}
	return "", errCaller
}

// inodeOf returns the socket of 127.0.0.1 with these two ports.
func inodeOf(local, remote int) (string, error) {
	file, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	const loopback = "0100007F:" // as the kernel prints it on little-endian machines
	from, to := loopback+hex4(local), loopback+hex4(remote)
	for s := bufio.NewScanner(file); s.Scan(); {
		const localAt, remoteAt, inodeAt = 1, 2, 9
		field := strings.Fields(s.Text())
		if len(field) > inodeAt && field[localAt] == from && field[remoteAt] == to && field[inodeAt] != "0" {
			return field[inodeAt], nil
		}
	}
	return "", errCaller
}

func hex4(port int) string { return fmt.Sprintf("%04X", port) }

// holds reports whether a process has a socket open.
func holds(pid int, inode string) bool {
	if pid == 0 {
		return false
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
