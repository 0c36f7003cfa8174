// Command benchidle measures what an idle connection costs the edge: it starts bin/edge
// as a process, opens authenticated connections of as many users to it, and prints its
// resident memory at two counts and the slope between them.
//
//	go run ./scripts/benchidle -edge bin/edge -n 15000        (make bench-idle)
//
// Everything is on loopback. The nats-server runs in this process, so that the edge's
// figure is the edge's alone.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/worker/streams"
)

const (
	dialers  = 32
	settle   = 10 * time.Second // between the last connection and the measurement
	loginMax = 20 * time.Second
)

func main() {
	edge := flag.String("edge", "bin/edge", "the edge's binary")
	n := flag.Int("n", 15000, "connections, at most what one process may hold")
	first := flag.Int("from", 2000, "connections at the first measurement")
	flag.Parse()
	if err := run(*edge, *first, *n); err != nil {
		fmt.Fprintln(os.Stderr, "benchidle:", err)
		os.Exit(1)
	}
}

func run(edge string, first, n int) error {
	dir, err := os.MkdirTemp("", "benchidle-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := servers.StartNATS(servers.NATSOptions{StoreDir: filepath.Join(dir, "nats")})
	if err != nil {
		return err
	}
	defer srv.Shutdown()
	if err := createStreams(srv.URL()); err != nil {
		return err
	}
	secret, err := devkeys.Secret(dir)
	if err != nil {
		return err
	}
	addr, admin, err := freeAddresses()
	if err != nil {
		return err
	}
	cmd := exec.Command(edge)
	cmd.Env = []string{"EDGE_NAME=idle", "LISTEN=" + addr, "ADMIN_LISTEN=" + admin, "NATS_URL=" + srv.URL(),
		"JWT_HS256_SECRET=" + string(secret), "LOG_LEVEL=warn", "LOG_FORMAT=text", "DRAIN_NOTICE=0s", "DRAIN_RATE=100000"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := awaitReady(admin); err != nil {
		return err
	}
	return measure(cmd.Process.Pid, addr, secret, first, n)
}

// measure opens the connections in two steps and prints the figures.
func measure(pid int, addr string, secret []byte, first, n int) error {
	empty, err := residentBytes(pid)
	if err != nil {
		return err
	}
	fmt.Printf("edge without connections: %.1f MiB\n", mib(empty))
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	rss := map[int]int64{}
	for _, upTo := range []int{first, n} {
		begin, had := time.Now(), len(conns)
		more, err := open(addr, secret, had, upTo)
		conns = append(conns, more...)
		if err != nil {
			return err
		}
		took := time.Since(begin)
		time.Sleep(settle) // the measurement is of rest: the garbage of the logins is collected and given back
		if rss[upTo], err = residentBytes(pid); err != nil {
			return err
		}
		fmt.Printf("%6d authenticated connections: %.1f MiB resident, %d bytes each above the empty edge (connected at %.0f/s)\n",
			upTo, mib(rss[upTo]), (rss[upTo]-empty)/int64(upTo), float64(upTo-had)/took.Seconds())
	}
	fmt.Printf("slope from %d to %d: %d bytes a connection\n", first, n, (rss[n]-rss[first])/int64(n-first))
	return nil
}

// open logs users from…upTo-1 in, one connection each.
func open(addr string, secret []byte, from, upTo int) ([]net.Conn, error) {
	var mu sync.Mutex
	var conns []net.Conn
	var errs []error
	next := make(chan int)
	var group sync.WaitGroup
	for range dialers {
		group.Go(func() {
			for i := range next {
				c, err := login(addr, secret, "idle-"+strconv.Itoa(i))
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("connection %d: %w", i, err))
				} else {
					conns = append(conns, c)
				}
				mu.Unlock()
			}
		})
	}
	for i := from; i < upTo; i++ {
		next <- i
	}
	close(next)
	group.Wait()
	if len(errs) > 0 {
		return conns, fmt.Errorf("%d connections failed, the first: %w", len(errs), errs[0])
	}
	return conns, nil
}

// login opens a WebSocket with the token in the handshake and reads the login reply.
func login(addr string, secret []byte, user string) (net.Conn, error) {
	token, err := devkeys.Token(secret, user, time.Hour)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), loginMax)
	defer cancel()
	d := ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + token}})}
	c, br, _, err := d.Dial(ctx, "ws://"+addr+"/ws")
	if err != nil {
		return nil, err
	}
	if br == nil {
		br = bufio.NewReaderSize(c, 512)
	}
	_ = c.SetReadDeadline(time.Now().Add(loginMax))
	h, err := ws.ReadHeader(br)
	if err == nil && h.OpCode != ws.OpText {
		err = fmt.Errorf("the edge answered with opcode %d", h.OpCode)
	}
	if err == nil {
		_, err = io.CopyN(io.Discard, br, h.Length)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func createStreams(url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return streams.Ensure(ctx, js, streams.Layout{})
}

// freeAddresses returns two loopback addresses that nobody listens on.
func freeAddresses() (a, b string, err error) {
	var addrs [2]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer func() { _ = ln.Close() }()
		addrs[i] = ln.Addr().String()
	}
	return addrs[0], addrs[1], nil
}

func awaitReady(admin string) error {
	for deadline := time.Now().Add(loginMax); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return errors.New("the edge is not ready in time")
}

// residentBytes is VmRSS of a process.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

func mib(b int64) float64 { return float64(b) / (1 << 20) }
