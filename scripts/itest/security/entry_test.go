package security_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/wirepost/wirepost/scripts/natssetup/setup"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// publicKey of the seed in a file.
func publicKey(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// Nobody gets in without TLS, over another authority, or with a key that is not known.
func TestNobodyElseGetsIn(t *testing.T) {
	c := newCluster(t, 1, nil)
	other := setup.Dir(t.TempDir())
	if err := other.Init([]string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	edge, ca := seed(t, c.keys.Seed("edge")), nats.RootCAs(c.keys.CA())
	for name, try := range map[string]struct {
		opts []nats.Option
		want string
	}{
		"the system's authorities": {[]nats.Option{edge}, "unknown authority"},
		"another authority":        {[]nats.Option{edge, nats.RootCAs(other.CA())}, "unknown authority"},
		"another name":             {[]nats.Option{edge, ca, nats.Secure(&tls.Config{ServerName: "elsewhere"})}, "elsewhere"},
		"an old TLS":               {[]nats.Option{edge, ca, nats.Secure(&tls.Config{MaxVersion: tls.VersionTLS12})}, "protocol version"},
		"no key":                   {[]nats.Option{ca}, "authorization violation"},
		"a password":               {[]nats.Option{ca, nats.UserInfo("edge", "edge")}, "authorization violation"},
		"an unknown key":           {[]nats.Option{ca, seed(t, other.Seed("edge"))}, "authorization violation"},
		"a public key alone": {[]nats.Option{ca, nats.Nkey(publicKey(t, c.keys.Seed("edge")), func([]byte) ([]byte, error) {
			return make([]byte, 64), nil
		})}, "authorization violation"},
	} {
		nc, err := nats.Connect(c.url(), try.opts...)
		if err == nil {
			nc.Close()
			t.Errorf("%s: got in", name)
			continue
		}
		if !strings.Contains(strings.ToLower(err.Error()), try.want) {
			t.Errorf("%s: %v, want %q", name, err, try.want)
		}
	}
	nc, err := nats.Connect(c.url(), edge, ca)
	if err != nil {
		t.Fatalf("an edge with all of that: %v", err)
	}
	nc.Close()
}

// A client that goes on in clear text behind the server's INFO is cut.
func TestClearTextIsCut(t *testing.T) {
	c := newCluster(t, 1, nil)
	conn, err := net.Dial("tcp", c.nodes[0].Server().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	info, err := in.ReadString('\n')
	if err != nil || !strings.Contains(info, `"tls_required":true`) {
		t.Fatalf("the server says %q, %v", info, err)
	}
	if _, err := fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for err == nil {
		var line string
		line, err = in.ReadString('\n')
		got.WriteString(line)
	}
	if strings.Contains(got.String(), "PONG") || strings.Contains(err.Error(), "timeout") {
		t.Errorf("clear text was answered with %q, %v", got.String(), err)
	}
}

// A server without a certificate of the authority is no node of the cluster, and one with
// it is.
func TestForeignServerDoesNotJoin(t *testing.T) {
	c := newCluster(t, 3, nil)
	join := func(keys setup.Dir) *servers.NATSServer {
		s := &cluster{t: t, keys: keys, watch: &watch{used: map[string]map[string]bool{}}}
		s.conf = s.install(nil)
		return s.start(7, c.nodes[0].Server().ClusterAddr().String())
	}
	other := setup.Dir(t.TempDir())
	if err := other.Init([]string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	stranger := join(other)
	eventually(t, "the stranger's handshake failed", func() bool {
		return strings.Contains(strings.Join(c.watch.refusals(), "\n"), "TLS route handshake error")
	})
	if n := stranger.Server().NumRoutes(); n != 0 {
		t.Errorf("the stranger has %d routes", n)
	}
	friend := join(c.keys)
	eventually(t, "a server with the right certificate joins", func() bool { return friend.Server().NumRoutes() > 0 })
}

// A key is changed without a moment in which clients are refused, and the old one ends
// with retire.
func TestKeysAreRotated(t *testing.T) {
	c := newCluster(t, 1, nil)
	dial := func() (*nats.Conn, error) {
		return nats.Connect(c.url(), nats.RootCAs(c.keys.CA()), seed(t, c.keys.Seed("edge")), nats.NoReconnect(),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	}
	old, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	ended := old.StatusChanged(nats.CLOSED)
	if err := c.keys.Rotate("edge"); err != nil {
		t.Fatal(err)
	}
	fresh, err := dial()
	if err != nil {
		t.Fatalf("with the next key: %v", err)
	}
	defer fresh.Close()
	if err := old.Flush(); err != nil {
		t.Fatalf("the old key before it is retired: %v", err)
	}
	if err := c.keys.Retire("edge"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(string(c.keys), setup.KeysFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(c.conf), "nkeys", setup.KeysFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	node := c.nodes[0]
	if err := node.Server().ReloadOptions(c.local(0, node.Server().Addr().(*net.TCPAddr).Port, node.StoreDir())); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the connection with the retired key goes on")
	}
	if err := fresh.Flush(); err != nil {
		t.Errorf("the connection with the new key: %v", err)
	}
}

// One connection cannot take all of a server's memory with subscriptions: there is a bound.
func TestSubscriptionsAreBounded(t *testing.T) {
	c := newCluster(t, 1, func(_, text string) string {
		return strings.Replace(text, "\nmax_subscriptions: 250000\n", "\nmax_subscriptions: 100\n", 1)
	})
	nc := c.connect("edge")
	for i := range 101 {
		if _, err := nc.SubscribeSync(subject.Live(0, userid.MustParse(fmt.Sprint("u", i)))); err != nil {
			t.Fatalf("subscription %d: %v", i, err)
		}
	}
	eventually(t, "the next one is refused", func() bool {
		err := nc.LastError()
		return err != nil && strings.Contains(err.Error(), "maximum subscriptions exceeded")
	})
}
