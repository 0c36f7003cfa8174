package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

var errStatus = errors.New("not ready")

// Answers returns nil when url answers with status 200. It keeps no connection, so that
// nothing stays behind between two looks.
func Answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s answers %s", errStatus, req.URL.Path, res.Status)
	}
	return nil
}
