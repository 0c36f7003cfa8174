package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
)

// listeners are all ports of the system, taken before anything starts.
type listeners struct {
	page   net.Listener
	edges  [2]net.Listener
	admins [3]net.Listener
}

// listen takes every port of o, or none of them.
func listen(o options) (listeners, error) {
	var l listeners
	for _, p := range []struct {
		at   *net.Listener
		port int
		what string
		flag string
	}{
		{&l.page, o.page, "the demo page", "-port"},
		{&l.edges[0], o.edges[0], "the first edge", "-edge1"},
		{&l.edges[1], o.edges[1], "the second edge", "-edge2"},
		{&l.admins[0], o.admins[0], "the first edge's admin", "-admin1"},
		{&l.admins[1], o.admins[1], "the second edge's admin", "-admin2"},
		{&l.admins[2], o.admins[2], "the worker's admin", "-admin3"},
	} {
		var err error
		if *p.at, err = listenOn(p.port); err != nil {
			l.close()
			if errors.Is(err, syscall.EADDRINUSE) {
				return listeners{}, fmt.Errorf("port %d of %s is taken, by another make run perhaps: choose a free one with %s", p.port, p.what, p.flag)
			}
			return listeners{}, fmt.Errorf("port of %s: %w", p.what, err)
		}
	}
	return l, nil
}

func (l *listeners) close() {
	for _, x := range []net.Listener{l.page, l.edges[0], l.edges[1], l.admins[0], l.admins[1], l.admins[2]} {
		if x != nil {
			_ = x.Close()
		}
	}
}

// listenOn listens on a port of loopback; 0 is any.
func listenOn(port int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// absolute is a folder as people can find it.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
