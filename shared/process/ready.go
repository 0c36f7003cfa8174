package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// readyTimeout is how long -ready waits for an answer.
const readyTimeout = 3 * time.Second

// askReady asks the admin port of the process that runs with the same configuration
// whether it is ready, for those who watch containers without a shell in them. The error
// is what the process says is missing.
func askReady(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1" // it listens on every address
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req) // it has no use for redirects
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	const most = 4 << 10 // a line for each check
	text, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return err
}
