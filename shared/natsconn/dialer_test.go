package natsconn

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// A certificate is checked by the name that the operator gave: a server that others tell of
// by its address has the name of the one that was asked before, one that was given by its
// address has none.
func TestServerName(t *testing.T) {
	d, err := newDialer(Options{URL: "tls://nats.example.org:4222, 10.0.0.9:4222"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !d.secure {
		t.Error("tls:// is not secure")
	}
	for _, step := range []struct{ address, want string }{
		{"10.0.0.1:4222", "10.0.0.1"}, // no name was asked yet
		{"nats.example.org:4222", "nats.example.org"},
		{"10.0.0.1:4222", "nats.example.org"},
		{"10.0.0.9:4222", "10.0.0.9"},
		{"[fd00::1]:4222", "nats.example.org"},
		{"other.example.org:4222", "other.example.org"},
	} {
		if got := d.serverName(step.address); got != step.want {
			t.Errorf("%s: %q, want %q", step.address, got, step.want)
		}
	}
}

type reader struct {
	net.Conn
	io.Reader
}

func (r reader) Read(b []byte) (int, error) { return r.Reader.Read(b) }

// The first line may come in any pieces; what is behind it is kept, and it has an end.
func TestFirstLine(t *testing.T) {
	info := "INFO {\"x\":\"" + strings.Repeat("y", 9000) + "\"}\r\n"
	for name, r := range map[string]io.Reader{"in one piece": strings.NewReader(info), "byte by byte": iotest.OneByteReader(strings.NewReader(info))} {
		all, line, err := firstLine(reader{Reader: r})
		if err != nil || string(all) != info || string(line) != info {
			t.Errorf("%s: %d bytes, %d of them the line, %v", name, len(all), len(line), err)
		}
	}
	all, line, err := firstLine(reader{Reader: strings.NewReader("INFO {}\r\n-ERR 'x'\r\n")})
	if err != nil || string(line) != "INFO {}\r\n" || string(all) != "INFO {}\r\n-ERR 'x'\r\n" {
		t.Errorf("%q, %q, %v", all, line, err)
	}
	if _, _, err := firstLine(reader{Reader: strings.NewReader(strings.Repeat("x", 2*maxInfo))}); err != errNoInfo {
		t.Errorf("a line without an end: %v", err)
	}
	if _, _, err := firstLine(reader{Reader: strings.NewReader("INFO")}); err != io.EOF {
		t.Errorf("a line that is cut: %v", err)
	}
	c := &again{Conn: reader{Reader: strings.NewReader("rest")}, first: []byte("first ")}
	if got, err := io.ReadAll(c); err != nil || string(got) != "first rest" {
		t.Errorf("read again %q, %v", got, err)
	}
}
