package natsconn

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// maxInfo bounds a server's first line, in bytes.
const maxInfo = 32 << 10

var (
	errWebSocket = errors.New("a wrapped connection cannot go over WebSocket")
	errNoInfo    = errors.New("server did not begin with INFO")
	errEarly     = errors.New("server sent more than INFO before TLS")
)

// dialer connects in nats.go's place where Options.Wrap is to see what is inside of TLS.
// The TLS handshake comes behind the server's first line, so the dialer reads that line,
// does the handshake as nats.go would, and lets nats.go read the line again.
type dialer struct {
	wrap   func(net.Conn) net.Conn
	secure bool        // TLS is wanted, whatever the server says
	tls    *tls.Config // without ServerName
	given  map[string]bool
	host   string // the last one that was a name; a server that tells of itself by address is of its cluster
}

// newDialer reads what nats.go would do from the options that nats.go gets.
func newDialer(o Options, opts []nats.Option) (*dialer, error) {
	var all nats.Options
	for _, opt := range opts {
		if err := opt(&all); err != nil {
			return nil, err
		}
	}
	d := &dialer{wrap: o.Wrap, secure: all.Secure, tls: &tls.Config{MinVersion: tls.VersionTLS12}, given: map[string]bool{}}
	if all.RootCAsCB != nil {
		pool, err := all.RootCAsCB()
		if err != nil {
			return nil, err
		}
		d.tls.RootCAs = pool
	}
	for s := range strings.SplitSeq(o.URL, ",") {
		if s = strings.TrimSpace(s); !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			continue // nats.go says so, without the password
		}
		if u.Scheme == "ws" || u.Scheme == "wss" {
			return nil, errWebSocket
		}
		d.given[u.Hostname()] = true
		d.secure = d.secure || u.Scheme == "tls"
	}
	return d, nil
}

// SkipTLSHandshake tells nats.go that Dial did it.
func (d *dialer) SkipTLSHandshake() bool { return true }

// Dial is nats.CustomDialer. nats.go makes one call at a time.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, dialTimeout)
	if err != nil {
		return nil, err
	}
	secured, err := d.handshake(c, address)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return d.wrap(secured), nil
}

// handshake returns c as nats.go is to see it: at the server's first line, inside of TLS.
func (d *dialer) handshake(c net.Conn, address string) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	first, line, err := firstLine(c)
	if err != nil {
		return nil, err
	}
	var info struct {
		Required  bool `json:"tls_required"`
		Available bool `json:"tls_available"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(line, []byte("INFO ")), &info); err != nil {
		return nil, errNoInfo
	}
	name := d.serverName(address)
	inner := c
	if info.Required || d.secure && info.Available { // where it is neither, nats.go refuses
		if len(first) > len(line) {
			return nil, errEarly
		}
		cfg := d.tls.Clone()
		cfg.ServerName = name
		t := tls.Client(c, cfg)
		if err := t.Handshake(); err != nil {
			return nil, fmt.Errorf("%w: %w", nats.ErrTLS, err)
		}
		inner = t
	}
	return &again{Conn: inner, first: first}, c.SetDeadline(time.Time{})
}

// serverName is whose certificate the server at address must have.
func (d *dialer) serverName(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch {
	case net.ParseIP(host) == nil:
		d.host = host
	case d.host != "" && !d.given[host]:
		return d.host
	}
	return host
}

// firstLine reads until a line is whole; all are the bytes that came.
func firstLine(c net.Conn) (all, line []byte, err error) {
	buf := make([]byte, 4<<10)
	for n := 0; ; {
		k, err := c.Read(buf[n:])
		n += k
		if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
			return buf[:n], buf[:end+1], nil
		}
		switch {
		case err != nil:
			return nil, nil, err
		case n >= maxInfo:
			return nil, nil, errNoInfo
		case n == len(buf):
			buf = append(buf, make([]byte, n)...)
		}
	}
}

// again is a connection whose first bytes were read before.
type again struct {
	net.Conn
	first []byte
}

func (a *again) Read(b []byte) (int, error) {
	if len(a.first) == 0 {
		return a.Conn.Read(b)
	}
	n := copy(b, a.first)
	if a.first = a.first[n:]; len(a.first) == 0 {
		a.first = nil
	}
	return n, nil
}
