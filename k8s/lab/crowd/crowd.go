// Package crowd are the users of the rehearsal: clients of the Go SDK, which connect to the
// edges that are ready, send messages and count what is acknowledged.
package crowd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wirepost/wirepost/shared/client"
)

// Crowd is a set of clients.
type Crowd struct {
	key    ed25519.PrivateKey
	public []byte          // PEM
	edges  func() []string // addresses of the edges that are ready
	fail   context.CancelCauseFunc

	sent, stored atomic.Int64
	mu           sync.Mutex
	open         map[string]int // connections by edge
	members      []*member
}

// member is one user with one device.
type member struct {
	user   string
	client *client.Client
	leave  context.CancelFunc
	left   chan struct{} // closed when Run has ended
	ready  chan struct{} // closed when the client is in step with the server
}

// New returns an empty crowd. fail is called when a message is refused or lost.
func New(edges func() []string, fail context.CancelCauseFunc) (*Crowd, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &Crowd{key: key, public: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), edges: edges, fail: fail, open: map[string]int{}}, nil
}

// PublicKey is the PEM of the key that signs the users' tokens.
func (c *Crowd) PublicKey() []byte { return c.public }

// Join adds n users and returns when all of them are connected and in step. They stay
// until they leave or ctx ends.
func (c *Crowd) Join(ctx context.Context, n int) error {
	for range n {
		m := &member{user: fmt.Sprintf("user-%d", len(c.members)), left: make(chan struct{}), ready: make(chan struct{})}
		var err error
		m.client, err = client.New(client.Options{
			URLs: []string{"ws://edge/ws"}, NetDial: c.dial, Token: func(context.Context) (string, error) { return c.token(m.user) },
			AckTimeout: time.Minute, // rather later: what is sent twice waits twice
			MaxBackoff: 2 * time.Second,
		})
		if err != nil {
			return err
		}
		run, leave := context.WithCancel(ctx)
		m.leave = leave
		go func() {
			defer close(m.left)
			if err := m.client.Run(run); err != nil {
				c.fail(fmt.Errorf("%s: %w", m.user, err))
			}
		}()
		go m.read()
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		select {
		case <-m.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("%s is not in step after 2 minutes", m.user)
		}
	}
	return nil
}

// read takes the events, so that the client goes on reading its socket.
func (m *member) read() {
	for event := range m.client.Events() {
		if _, is := event.(client.Synced); is {
			select {
			case <-m.ready:
			default:
				close(m.ready)
			}
		}
	}
}

// Send hands n messages to the clients, one after the other, each to its neighbour. What
// becomes of them, Stored tells.
func (c *Crowd) Send(ctx context.Context, n int) error {
	for i := range n {
		m, to := c.members[i%len(c.members)], c.members[(i+1)%len(c.members)]
		pending, err := m.client.Send(ctx, to.user, map[string]int{"n": i})
		if err != nil {
			return fmt.Errorf("%s sends: %w", m.user, err)
		}
		c.sent.Add(1)
		go func() {
			<-pending.Done()
			if _, err := pending.Result(); err == nil {
				c.stored.Add(1)
			} else if ctx.Err() == nil {
				c.fail(fmt.Errorf("a message of %s was not stored: %w", m.user, err))
			}
		}()
	}
	return nil
}

// Stored returns how many messages were sent, and how many of them were acknowledged.
func (c *Crowd) Stored() (sent, stored int) { return int(c.sent.Load()), int(c.stored.Load()) }

// Size returns how many users there are.
func (c *Crowd) Size() int { return len(c.members) }

// Leave takes the last n users away and returns when they are gone.
func (c *Crowd) Leave(n int) {
	stay := len(c.members) - n
	for _, m := range c.members[stay:] {
		m.leave()
	}
	for _, m := range c.members[stay:] {
		<-m.left
	}
	c.members = c.members[:stay]
}

func (c *Crowd) token(user string) (string, error) {
	now := time.Now()
	claims := jwt.RegisteredClaims{Subject: user, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(12 * time.Hour))}
	return jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims).SignedString(c.key)
}

// dial connects to the ready edge with the fewest connections, as k8s/README.md asks of
// the gateway. It also gives up when an edge has just gone: the client tries again.
func (c *Crowd) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	edge, err := c.choose()
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(edge, "8080"))
	if err != nil {
		c.closed(edge)
		return nil, err
	}
	return c.count(conn, edge), nil
}

// count returns a connection that is one less at its edge when it is closed.
func (c *Crowd) count(conn net.Conn, edge string) net.Conn {
	return &counted{Conn: conn, closed: sync.OnceFunc(func() { c.closed(edge) })}
}

func (c *Crowd) choose() (string, error) {
	edges := c.edges()
	if len(edges) == 0 {
		return "", errors.New("no edge is ready")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	least := edges[0]
	for _, edge := range edges {
		if c.open[edge] < c.open[least] {
			least = edge
		}
	}
	c.open[least]++
	return least, nil
}

func (c *Crowd) closed(edge string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[edge]--
}

type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}
