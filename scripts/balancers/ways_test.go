package balancers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/load/nginx"
	"github.com/wirepost/wirepost/scripts/ports"
	"github.com/wirepost/wirepost/scripts/usage"
)

// way is how a client comes to the edges.
type way struct {
	name   string
	scheme string // that the edges learn
	port   bool   // the edges learn the client's port
	tls    bool   // the client speaks TLS with the first layer
	open   func(t *testing.T, s *system, tls string) []*layer
}

// ways are those that are shipped. Each list of layers begins with the one that faces the
// client.
var ways = []way{
	{"nginx", "https", false, true, func(t *testing.T, s *system, tls string) []*layer {
		return []*layer{startNginx(t, nginx.Single, nginx.Addresses{Edges: s.listens(), TLS: tls})}
	}},
	{"nginx, no TLS", "http", false, false, func(t *testing.T, s *system, tls string) []*layer {
		return []*layer{startNginx(t, nginx.Single, nginx.Addresses{Edges: s.listens(), TLS: tls})}
	}},
	{"nginx, nginx", "https", false, true, func(t *testing.T, s *system, tls string) []*layer {
		inner := startNginx(t, nginx.Inner, nginx.Addresses{Edges: s.listens(), Outers: []string{"127.0.0.1"}})
		return []*layer{startNginx(t, nginx.Outer, nginx.Addresses{Inners: []string{inner.addr}, TLS: tls}), inner}
	}},
	{"HAProxy", "https", false, true, func(t *testing.T, s *system, tls string) []*layer {
		return []*layer{startHAProxy(t, "http.cfg", tls, s.listens(), s.admins())}
	}},
	{"HAProxy by PROXY", "unknown", true, true, func(t *testing.T, s *system, tls string) []*layer {
		return []*layer{startHAProxy(t, "tcp.cfg", tls, s.proxyListens(), s.admins())}
	}},
	{"nginx, HAProxy by PROXY", "https", false, true, func(t *testing.T, s *system, tls string) []*layer {
		inner := startHAProxy(t, "tcp.cfg", "", s.proxyListens(), s.admins())
		return []*layer{startNginx(t, nginx.Outer, nginx.Addresses{Inners: []string{inner.addr}, TLS: tls}), inner}
	}},
}

// roads is how many there were: each has an address for its clients.
var roads atomic.Int32

// onEachWay runs test on each way, all at once, however few processors there are: most of
// the time they wait.
func onEachWay(t *testing.T, s *system, test func(t *testing.T, r *road)) {
	var all sync.WaitGroup
	for _, w := range ways {
		all.Go(func() {
			t.Run(w.name, func(t *testing.T) { test(t, w.road(t, s)) })
		})
	}
	all.Wait()
}

// road starts the layers of a way.
func (w way) road(t *testing.T, s *system) *road {
	t.Helper()
	r := &road{way: w, from: fmt.Sprintf("127.0.1.%d", roads.Add(1))}
	folder := ""
	if w.tls {
		folder, r.roots = certificate(t)
	}
	r.layers = w.open(t, s, folder)
	return r
}

// road is a way with its layers running.
type road struct {
	way
	layers []*layer
	roots  *x509.CertPool // that the first layer's certificate is checked by; nil: no TLS
	from   string         // a client's address, which no other road has
}

// url is for clients that connect by dial, which speaks TLS where it must.
func (r *road) url() string { return "ws://" + r.layers[0].addr + "/ws" }

// dial connects to the first layer from the road's address.
func (r *road) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.from)}, Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil || r.roots == nil {
		return c, err
	}
	secure := tls.Client(c, &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return secure, nil
}

// layer is a balancer that runs: a master process whose children do the work.
type layer struct {
	addr   string
	dir    string
	reload syscall.Signal
	cmd    *exec.Cmd
	log    string // file
	master string // socket on which HAProxy's master takes commands; "": it is nginx
}

func startNginx(t *testing.T, conf string, a nginx.Addresses) *layer {
	t.Helper()
	program, shipped := nginx.Need(t)
	l := &layer{addr: free(t), dir: filepath.Join(t.TempDir(), "nginx"), reload: syscall.SIGHUP}
	a.Listen = l.addr
	if err := nginx.Render(shipped, l.dir, a); err != nil {
		t.Fatal(err)
	}
	l.start(t, exec.Command(program, nginx.Args(l.dir, conf)...))
	return l
}

// startHAProxy runs a shipped file as it is: what an operator changes is in the environment.
func startHAProxy(t *testing.T, conf, tls string, edges, admins []string) *layer {
	t.Helper()
	program := needHAProxy(t)
	l := &layer{addr: free(t), dir: t.TempDir(), reload: syscall.SIGUSR2}
	bind := l.addr
	if tls != "" {
		bind += " ssl crt " + filepath.Join(tls, "tls.pem") + " alpn http/1.1"
	}
	short, err := os.MkdirTemp("", "haproxy-") // HAProxy takes no blank in the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	l.master = filepath.Join(short, "master.sock")
	cmd := exec.Command(program, "-W", "-S", l.master, "-f", shippedHAProxy(t, conf))
	cmd.Env = []string{"WIREPOST_BIND=" + bind}
	for i := range edges {
		_, port, err := net.SplitHostPort(admins[i])
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf("WIREPOST_EDGE_%d=%s", i+1, edges[i]), fmt.Sprintf("WIREPOST_ADMIN_PORT_%d=%s", i+1, port))
	}
	l.start(t, cmd)
	return l
}

func needHAProxy(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const missing = "no haproxy on this machine (Debian, Ubuntu: apt-get install haproxy)"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

func shippedHAProxy(t *testing.T, conf string) string {
	t.Helper()
	_, folder := nginx.Need(t)
	return filepath.Join(filepath.Dir(folder), "haproxy", conf)
}

// start returns when the layer accepts connections; it ends with the test.
func (l *layer) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	l.log = filepath.Join(t.TempDir(), "layer.log")
	out, err := os.Create(l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.cmd = cmd
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group: its workers, too
		_ = cmd.Wait()
		if b, err := os.ReadFile(l.log); t.Failed() && err == nil {
			t.Logf("log of %s:\n%s", filepath.Base(cmd.Path), b[max(0, len(b)-3000):])
		}
	})
	eventually(t, 20*time.Second, "the balancer listens", func() bool {
		c, err := net.Dial("tcp", l.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// renew lets the layer read its configuration anew, and returns when a new process takes
// what comes and the old one is still there for the sockets it has.
func (l *layer) renew(t *testing.T) {
	t.Helper()
	if l.master != "" {
		// A signal is lost that comes after HAProxy has its new process and before its master
		// is ready for the next one. It answers when it is.
		eventually(t, 20*time.Second, "HAProxy's master listens to signals", func() bool { return answers(l.master) })
	}
	old := map[int]bool{}
	for _, pid := range usage.Children(l.cmd.Process.Pid) {
		old[pid] = true
	}
	if err := l.cmd.Process.Signal(l.reload); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the balancer has a new process beside the old", func() bool {
		fresh, held := 0, 0
		for _, pid := range usage.Children(l.cmd.Process.Pid) {
			if old[pid] {
				held++
			} else {
				fresh++
			}
		}
		return fresh > 0 && held > 0
	})
}

// answers reports whether HAProxy's master takes commands on its socket.
func answers(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	if _, err := io.WriteString(c, "show proc\n"); err != nil {
		return false
	}
	b, _ := io.ReadAll(c)
	return strings.Contains(string(b), "master")
}

func free(t testing.TB) string {
	t.Helper()
	addr, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// certificate makes a certificate for 127.0.0.1: tls.crt and tls.key for nginx, both in
// tls.pem for HAProxy.
func certificate(t *testing.T) (folder string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	folder, roots = t.TempDir(), x509.NewCertPool()
	roots.AppendCertsFromPEM(crt)
	for name, text := range map[string]string{"tls.crt": string(crt), "tls.key": string(secret), "tls.pem": string(crt) + string(secret)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder, roots
}

// output is what the layer and its processes have logged.
func (l *layer) output(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	files, err := filepath.Glob(filepath.Join(l.dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, l.log) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
