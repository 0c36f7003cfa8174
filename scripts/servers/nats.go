package servers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// readyTimeout bounds the start of any server here.
const readyTimeout = 20 * time.Second

// errNotReady is returned when a server does not listen within readyTimeout.
var errNotReady = errors.New("server is not ready in time")

// NATSOptions says how to start a nats-server. The zero value of each field but StoreDir
// is usable.
type NATSOptions struct {
	StoreDir   string                // of JetStream; it must be given, and it survives a restart
	Port       int                   // 0 = a free one, kept over restarts
	MaxPayload int32                 // bytes; 0 = nats-server's default of 1 MiB
	SyncAlways bool                  // fsync each message: slow, durable against power loss
	Log        server.Logger         // nil = silent
	Tune       func(*server.Options) // nil = nothing to change
}

// NATSServer is a nats-server in this process. Its methods must not be called
// concurrently with Shutdown or Restart.
type NATSServer struct {
	opts  NATSOptions
	srv   *server.Server
	url   string
	conns []*nats.Conn // of Conn
}

// StartNATS starts a nats-server with JetStream and returns when it accepts connections.
func StartNATS(o NATSOptions) (*NATSServer, error) {
	if o.StoreDir == "" {
		return nil, errors.New("start nats-server: no store folder given")
	}
	s := &NATSServer{opts: o}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *NATSServer) start() error {
	o := s.options()
	if err := os.MkdirAll(o.StoreDir, 0o700); err != nil {
		return fmt.Errorf("start nats-server: %w", err)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("start nats-server: %w", err)
	}
	if s.opts.Log != nil {
		srv.SetLoggerV2(s.opts.Log, false, false, false)
	}
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("start nats-server on port %d: %w", o.Port, errNotReady)
	}
	s.srv, s.url = srv, srv.ClientURL()
	s.opts.Port = srv.Addr().(*net.TCPAddr).Port
	return nil
}

func (s *NATSServer) options() *server.Options {
	o := &server.Options{
		Host: "127.0.0.1", Port: s.opts.Port, JetStream: true, StoreDir: s.opts.StoreDir,
		SyncAlways: s.opts.SyncAlways, MaxPayload: s.opts.MaxPayload, NoSigs: true, NoLog: s.opts.Log == nil,
	}
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if s.opts.Tune != nil {
		s.opts.Tune(o)
	}
	return o
}

// URL returns the client address; it stays the same over a restart.
func (s *NATSServer) URL() string { return s.url }

// StoreDir returns the folder that JetStream writes to.
func (s *NATSServer) StoreDir() string { return s.opts.StoreDir }

// Server returns the running server.
func (s *NATSServer) Server() *server.Server { return s.srv }

// Shutdown stops the server and returns when it is down and the connections of Conn know
// it: a request that goes into a connection whose server has just died is never answered.
// A second call does nothing.
func (s *NATSServer) Shutdown() {
	if s.srv == nil {
		return
	}
	var lost []chan nats.Status
	for _, nc := range s.conns {
		changed := nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
		defer nc.RemoveStatusListener(changed)
		if nc.IsConnected() {
			lost = append(lost, changed)
		}
	}
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.srv = nil
	for _, changed := range lost {
		<-changed
	}
}

// Restart stops the server if it runs, and starts it on the same port and folder.
func (s *NATSServer) Restart() error {
	s.Shutdown()
	return s.start()
}
