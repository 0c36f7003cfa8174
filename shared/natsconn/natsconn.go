// Package natsconn connects to NATS with the options that the system depends on: it
// reconnects for ever, never buffers a publish while it is disconnected, and says in
// the log what happens to the connection.
//
// It knows no subject and no stream.
package natsconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Constants until an operator asks.
const (
	dialTimeout   = 2 * time.Second
	pingInterval  = 3 * time.Second // with pingsOut 2, a silent server is given up after 6 to 9 s
	pingsOut      = 2
	reconnectWait = 250 * time.Millisecond // between rounds over the known servers
	jitter        = 500 * time.Millisecond // added to reconnectWait at random, so that a fleet spreads out
	tellEvery     = 3 * time.Second        // between log lines while no server answers, or errors are reported
)

var (
	// ErrNotConnected is returned by Ready while there is no connection.
	ErrNotConnected = errors.New("not connected")
	// ErrClosed is returned when the connection was closed for good.
	ErrClosed = errors.New("nats connection closed")
)

// Options say where and how to connect.
type Options struct {
	URL  string // one or more, separated by commas; may hold credentials, which are never logged
	Name string // as the server shows it
	// CredsFile is a .creds file (JWT and seed), CAFile a PEM file with the authorities
	// of the server's certificate. Empty: none.
	CredsFile, CAFile string
	// NKeyFile is a file with a user's nkey seed, which is read once. Empty: none. Not
	// together with CredsFile.
	NKeyFile string
	// InboxPrefix is this role's own (stream.EdgeInbox, stream.WorkerInbox), so that a role
	// which may read its inbox reads nobody else's. Empty: "_INBOX".
	InboxPrefix string
	Log         *slog.Logger
	// Metrics, if it is not nil, shows this connection and no other. Not together with Wrap.
	Metrics *Metrics
	// Wrap, if it is not nil, is put around each connection to a server, inside of TLS:
	// what nats.go writes and reads passes through it in the clear. It is called before
	// the server's first byte is read, by one goroutine at a time.
	Wrap func(net.Conn) net.Conn

	// The hooks run on a goroutine of the connection, one after the other; they must not
	// block. Each may be nil.
	OnDisconnect   func(err error) // err may be nil
	OnReconnect    func()          // what was published to subscribers meanwhile is lost
	OnSlowConsumer func(sub *nats.Subscription)
}

// Connect returns a connection that is connected. While no server answers it goes on
// trying, with a log line each few seconds, until ctx ends. What no retry cures, a bad
// URL or an unreadable file, is an error at once. The caller closes the connection.
func Connect(ctx context.Context, o Options) (*nats.Conn, error) {
	for _, file := range []string{o.CredsFile, o.CAFile} {
		if err := readable(file); err != nil {
			return nil, fmt.Errorf("connect to nats: %w", err)
		}
	}
	w := &watcher{o: o, connected: make(chan struct{})}
	opts := w.options()
	if o.Wrap != nil {
		d, err := newDialer(o, opts)
		if err != nil {
			return nil, fmt.Errorf("connect to nats: %w", err)
		}
		opts = append(opts, nats.SetCustomDialer(d), nats.SkipHostLookup()) // a name is what a certificate is checked by
	}
	if o.NKeyFile != "" {
		opt, err := nkey(o.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("connect to nats: %w", err)
		}
		opts = append(opts, opt)
	}
	nc, err := nats.Connect(o.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to nats: %w", err)
	}
	if nc.IsConnected() {
		w.first()
	}
	if err := w.wait(ctx, nc); err != nil {
		nc.Close()
		return nil, err
	}
	o.Log.Info("connected to nats", "name", o.Name, "url", nc.ConnectedUrlRedacted(), "server", nc.ConnectedServerName())
	return nc, nil
}

// Ready returns nil while nc is connected, for a readiness check.
func Ready(nc *nats.Conn) error {
	if nc == nil || !nc.IsConnected() {
		return ErrNotConnected
	}
	return nil
}

// Drain unsubscribes, lets what was received be worked and what was published go out,
// and closes nc. When ctx ends it closes at once.
func Drain(ctx context.Context, nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	if nc.IsClosed() {
		return nil
	}
	if err := nc.Drain(); err != nil { // it is reconnecting: nothing can be drained
		nc.Close()
		return nil
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		nc.Close()
		return ctx.Err()
	}
}

func readable(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// watcher follows one connection. Its methods run on goroutines of the connection.
type watcher struct {
	o         Options
	once      sync.Once
	connected chan struct{} // closed at the first connection

	mu   sync.Mutex
	last error     // why the last attempt failed
	told time.Time // when the log last told of an error
}

func (w *watcher) options() []nats.Option {
	opts := []nats.Option{
		nats.Name(w.o.Name),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // a publish fails while disconnected, instead of being forgotten later
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(jitter, jitter),
		nats.IgnoreAuthErrorAbort(), // rights are changed on the server: do not close for good
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.ConnectHandler(func(*nats.Conn) { w.first() }),
		nats.DisconnectErrHandler(w.disconnected),
		nats.ReconnectHandler(w.reconnected),
		nats.ReconnectErrHandler(w.failed),
		nats.ErrorHandler(w.problem),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			w.o.Log.Info("nats server is about to stop, moving", "name", w.o.Name, "url", nc.ConnectedUrlRedacted())
		}),
	}
	if w.o.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(w.o.CredsFile))
	}
	if w.o.CAFile != "" {
		opts = append(opts, nats.RootCAs(w.o.CAFile))
	}
	if w.o.Metrics != nil {
		opts = append(opts, w.o.Metrics.watch) // behind RootCAs, which makes the configuration that it adds to
	}
	if w.o.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(w.o.InboxPrefix))
	}
	return opts
}

// wait returns when nc is connected for the first time.
func (w *watcher) wait(ctx context.Context, nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	defer nc.RemoveStatusListener(closed)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.connected:
			return nil
		case <-closed:
			return ErrClosed
		case <-tick.C: // nats.go tells failed of an unreachable server, but not of every refusal
			w.waiting(nc.LastError())
		case <-ctx.Done():
			w.mu.Lock()
			defer w.mu.Unlock()
			return fmt.Errorf("connect to nats: %w", errors.Join(ctx.Err(), w.last))
		}
	}
}

func (w *watcher) waiting(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		err = w.last
	}
	if w.tell() {
		w.o.Log.Warn("waiting for nats", "name", w.o.Name, "err", err)
	}
}

func (w *watcher) first() {
	w.once.Do(func() {
		if w.o.Metrics != nil {
			w.o.Metrics.connected()
		}
		close(w.connected)
	})
}

// failed gets the error of each attempt to connect or to reconnect.
func (w *watcher) failed(_ *nats.Conn, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, nats.ErrNoServers) && w.last == nil {
		w.last = err
		return // the very first attempt; the next one, in less than a second, says why
	}
	w.last = err
	if w.tell() {
		w.o.Log.Warn("waiting for nats", "name", w.o.Name, "err", err)
	}
}

// tell reports whether a log line is due. w.mu is held.
func (w *watcher) tell() bool {
	now := time.Now()
	due := now.Sub(w.told) >= tellEvery
	if due {
		w.told = now
	}
	return due
}

func (w *watcher) disconnected(nc *nats.Conn, err error) {
	if nc.IsClosed() {
		return // closed by its owner
	}
	w.o.Log.Warn("nats connection lost, reconnecting", "name", w.o.Name, "err", err)
	if w.o.Metrics != nil {
		w.o.Metrics.disconnected()
	}
	if w.o.OnDisconnect != nil {
		w.o.OnDisconnect(err)
	}
}

func (w *watcher) reconnected(nc *nats.Conn) {
	w.o.Log.Info("reconnected to nats", "name", w.o.Name, "url", nc.ConnectedUrlRedacted())
	if w.o.Metrics != nil {
		w.o.Metrics.reconnects.Inc()
		w.o.Metrics.connected()
	}
	if w.o.OnReconnect != nil {
		w.o.OnReconnect()
	}
}

// problem gets what nats.go finds out on the side. A slow consumer is reported once
// each time it becomes slow, not once for each message that it lost.
func (w *watcher) problem(nc *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		w.o.Log.Warn("nats subscription is too slow, messages were dropped", "name", w.o.Name)
		if w.o.OnSlowConsumer != nil {
			w.o.OnSlowConsumer(sub)
		}
		return
	}
	if !nc.IsConnected() {
		w.failed(nc, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tell() { // a missing right could fill the log with a line for each publish
		w.o.Log.Warn("nats reports an error", "name", w.o.Name, "err", err)
	}
}
