// Package edge is the gateway process: it wires its rooms in the order in which a frame
// passes them, and stops them in reverse.
//
// It holds no business and no state that a crash could lose.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/edge/auth"
	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/edge/handshake"
	"github.com/wirepost/wirepost/edge/memory"
	"github.com/wirepost/wirepost/edge/socket"
	"github.com/wirepost/wirepost/edge/uplink"
	"github.com/wirepost/wirepost/shared/admin"
	"github.com/wirepost/wirepost/shared/natsconn"
	"github.com/wirepost/wirepost/shared/process"
	"github.com/wirepost/wirepost/shared/stream"
)

const (
	// drainSlack is the time that a drain may take beyond what its rate needs.
	drainSlack = 30 * time.Second
	// lastEvents is how long the uplink may take to store what the drained sockets left.
	lastEvents = 15 * time.Second
	// bufferShare is the part of the memory limit, in percent, that may wait in buffers for
	// peers that do not read or do not finish what they send; maxBuffered are bytes.
	bufferShare = 40
	maxBuffered = 512 << 20
	// adminStop is how long requests on the admin port may take at the end.
	adminStop = 2 * time.Second
)

var (
	// ErrAborted is returned by Run after Abort.
	ErrAborted = errors.New("edge was aborted")

	errStarting = errors.New("not serving yet")
	errDraining = errors.New("draining")
	errNoNATS   = errors.New("not connected to nats")
	errNoMarker = errors.New("markers are not answered: no worker created the streams, or nats is away")
)

// Deps are what an Edge is handed; the listeners become the edge's. All are required, but
// for ProxyListener.
type Deps struct {
	Log           *slog.Logger
	Registry      *prometheus.Registry // with the process's own collectors, see admin.NewRegistry
	Listener      net.Listener         // of clients; a TCP listener
	ProxyListener net.Listener         // of load balancers that speak the PROXY protocol; nil: none
	AdminListener net.Listener
}

// Edge is one gateway process. Its life is New, Run; Abort may come at any time.
type Edge struct {
	cfg     Config
	deps    Deps
	aborted chan struct{}
	once    sync.Once
	rooms   atomic.Pointer[rooms] // nil until Run serves
	drains  atomic.Bool
}

// rooms are what a frame passes.
type rooms struct {
	verifier *auth.Verifier
	uplink   *uplink.Uplink
	downlink *downlink.Downlink
	sockets  *socket.Server
}

// New returns an edge that does nothing yet.
func New(cfg Config, deps Deps) *Edge {
	return &Edge{cfg: cfg, deps: deps, aborted: make(chan struct{})}
}

// Abort cuts everything at once, as a crash would: no close frames, no events. Run then
// returns ErrAborted. Any goroutine may call it.
func (e *Edge) Abort() { e.once.Do(func() { close(e.aborted) }) }

// Run serves until ctx ends; then it drains: readiness goes off, clients are told and
// closed at the configured rate, what they sent last is stored. It waits for NATS at the
// start, with readiness off. The wiring is one straight line on purpose: its order is the
// order of dependency, and each stop is registered where its start is.
func (e *Edge) Run(ctx context.Context) error {
	log := e.deps.Log
	stops := process.Stack{Log: log}
	adm := admin.New(admin.Options{Registry: e.deps.Registry, Checks: e.checks(), Log: log})
	failed := make(chan error, 2) // written by the two servers, read here
	go func() { failed <- adm.Serve(e.deps.AdminListener) }()
	stops.Push("admin port", adminStop, adm.Stop)

	alive, cut := context.WithCancel(context.WithoutCancel(ctx)) // ends when everything must end
	defer cut()
	stopped, unhook := context.WithCancel(ctx) // ends at the first of ctx and Abort
	defer unhook()
	go func() {
		select {
		case <-e.aborted:
			unhook()
		case <-alive.Done():
		}
	}()
	r, err := e.start(stopped, alive, &stops)
	if err != nil {
		for _, ln := range e.listeners() {
			_ = ln.Close()
		}
		return errors.Join(e.reason(ctx, err), stops.Drain(context.WithoutCancel(ctx)))
	}
	e.rooms.Store(r)
	go func() { failed <- r.sockets.Serve(e.listeners()...) }()
	serves := []any{"edge", e.cfg.Name, "listen", e.deps.Listener.Addr().String(), "path", e.cfg.PathPrefix, "admin", e.deps.AdminListener.Addr().String()}
	if at := e.deps.ProxyListener; at != nil {
		serves = append(serves, "proxy_listen", at.Addr().String())
	}
	log.Info("edge serves", serves...)

	select {
	case err = <-failed:
		r.sockets.Abort()
	case <-e.aborted:
		r.sockets.Abort()
		err = ErrAborted
	case <-ctx.Done():
		err = e.drain(alive, r)
	}
	return errors.Join(err, stops.Drain(alive))
}

// listeners are where clients come in, that of the PROXY protocol last.
func (e *Edge) listeners() []socket.Listener {
	lns := []socket.Listener{{Listener: e.deps.Listener}}
	if e.deps.ProxyListener != nil {
		lns = append(lns, socket.Listener{Listener: e.deps.ProxyListener, Proxied: true})
	}
	return lns
}

// reason is what Run returns when the start failed: nothing when it was told to stop.
func (e *Edge) reason(ctx context.Context, err error) error {
	select {
	case <-e.aborted:
		return ErrAborted
	default:
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// start builds the rooms. ctx bounds the wait for NATS; life is how long they live.
func (e *Edge) start(ctx, life context.Context, stops *process.Stack) (*rooms, error) {
	log, reg := e.deps.Log, e.deps.Registry
	origins, err := handshake.ParseOrigins(e.cfg.Origins)
	if err != nil {
		return nil, fmt.Errorf("ALLOWED_ORIGINS: %w", err)
	}
	proxies, err := handshake.ParseProxies(e.cfg.Proxies.Trusted)
	if err != nil {
		return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	verifier, err := auth.New(auth.Options{HS256Secret: []byte(e.cfg.Token.Secret.Reveal()), PublicKeys: e.cfg.Token.PublicKeys,
		JWKSURL: e.cfg.Token.JWKSURL.Reveal(), Issuer: e.cfg.Token.Issuer, Audience: e.cfg.Token.Audience, Log: log, Registerer: reg})
	if err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	verifying, stopVerifying := context.WithCancel(life)
	go verifier.Run(verifying)
	stops.Push("keys", time.Second, func(context.Context) error { stopVerifying(); return nil })

	up, err := uplink.New(ctx, uplink.Config{Lanes: e.cfg.Layout.Lanes, Dial: e.dialUplink, Log: log, Registry: reg})
	if err != nil {
		return nil, err
	}
	stops.Push("uplink", time.Second, func(context.Context) error { up.Close(); return nil })

	down, err := downlink.New(ctx, downlink.Config{Edge: e.cfg.Name, Shards: e.cfg.Layout.Shards, Dial: e.dialDownlink, DialReads: e.dialReads, Log: log,
		Registry: reg, SweepEvery: e.cfg.Layout.Sweep})
	if err != nil {
		return nil, err
	}
	stops.Push("downlink", time.Second, func(context.Context) error { down.Close(); return nil })

	watch := memory.New(reg)
	watching, stopWatching := context.WithCancel(life)
	go watch.Run(watching)
	stops.Push("memory", time.Second, func(context.Context) error { stopWatching(); return nil })

	sockets, err := socket.New(socket.Config{Edge: e.cfg.Name, Rules: handshake.Rules{Prefix: e.cfg.PathPrefix, Origins: origins, Proxies: proxies},
		Attempts:  e.cfg.Proxies.AttemptRate,
		DrainRate: e.cfg.Sockets.DrainRate, ShortOfMemory: watch.Short, LoginsLate: down.Late,
		Limits: socket.Limits{Frame: e.cfg.Sockets.MaxFrame, Buffered: watch.Share(bufferShare, maxBuffered)},
		Rates:  socket.Rates{Frames: e.cfg.Sockets.FrameRate, Bytes: e.cfg.Sockets.ByteRate},
		Times:  socket.Times{Heartbeat: e.cfg.Sockets.Heartbeat}},
		socket.Deps{Log: log, Registry: reg, Verifier: verifier, Uplink: up, Downlink: down})
	if err != nil {
		return nil, err
	}
	stops.Push("sockets", time.Second, func(context.Context) error { sockets.Abort(); return nil })
	return &rooms{verifier, up, down, sockets}, nil
}

// nats says how a room named name connects to NATS.
func (e *Edge) nats(name string) natsconn.Options {
	return natsconn.Options{URL: e.cfg.NATS.URL.Reveal(), Name: e.cfg.Name + " " + name, CredsFile: e.cfg.NATS.CredsFile,
		NKeyFile: e.cfg.NATS.NKeyFile, CAFile: e.cfg.NATS.CAFile, InboxPrefix: stream.EdgeInbox, Log: e.deps.Log}
}

func (e *Edge) dialUplink(ctx context.Context, name string, onReconnect func()) (*nats.Conn, error) {
	o := e.nats(name)
	o.OnReconnect = onReconnect
	o.Metrics = natsconn.NewMetrics(e.deps.Registry, "wirepost_edge")
	return natsconn.Connect(ctx, o)
}

func (e *Edge) dialDownlink(ctx context.Context, name string, wrap func(net.Conn) net.Conn) (*nats.Conn, error) {
	o := e.nats(name)
	o.Wrap = wrap
	return natsconn.Connect(ctx, o)
}

// dialReads connects what only reads streams, as a user of its own where there is one.
func (e *Edge) dialReads(ctx context.Context, name string) (*nats.Conn, error) {
	o := e.nats(name)
	o.NKeyFile = cmp.Or(e.cfg.NATS.ReplayNKeyFile, o.NKeyFile)
	return natsconn.Connect(ctx, o)
}

// drain ends the sockets at their rate, then waits for their last events.
func (e *Edge) drain(ctx context.Context, r *rooms) error {
	e.drains.Store(true)
	n := r.sockets.Connections()
	e.deps.Log.Info("drain", "sockets", n, "notice", e.cfg.Sockets.DrainNotice, "rate", e.cfg.Sockets.DrainRate)
	notice := time.NewTimer(e.cfg.Sockets.DrainNotice)
	defer notice.Stop()
	select {
	case <-notice.C:
	case <-e.aborted:
		r.sockets.Abort()
		return ErrAborted
	}
	within := time.Duration(n)*time.Second/time.Duration(e.cfg.Sockets.DrainRate) + drainSlack
	dctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	go func() {
		select {
		case <-e.aborted:
			r.sockets.Abort()
		case <-dctx.Done():
		}
	}()
	err := r.sockets.Drain(dctx)
	uctx, cancel := context.WithTimeout(ctx, lastEvents)
	defer cancel()
	return errors.Join(err, r.uplink.Drain(uctx))
}

// checks are what readiness depends on.
func (e *Edge) checks() []admin.Check {
	serving := func(check func(*rooms) error) func() error {
		return func() error {
			r := e.rooms.Load()
			if r == nil {
				return errStarting
			}
			return check(r)
		}
	}
	return []admin.Check{
		// Of its own: while the start waits for NATS nothing is known of keys or markers, so that
		// the alerts about them wait for this one.
		{Name: "started", Ready: serving(func(*rooms) error { return nil })},
		{Name: "sockets", Ready: serving(func(*rooms) error {
			if e.drains.Load() {
				return errDraining
			}
			return nil
		})},
		{Name: "tokens", Ready: serving(func(r *rooms) error { return r.verifier.Ready() })},
		{Name: "uplink", Ready: serving(func(r *rooms) error {
			if !r.uplink.Connected() {
				return errNoNATS
			}
			return nil
		})},
		{Name: "downlink", Ready: serving(func(r *rooms) error {
			if !r.downlink.Ready() {
				return errNoMarker
			}
			return nil
		})},
	}
}
