package system

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/wirepost/wirepost/scripts/servers"
)

// answers returns a probe that is content with status 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error { return servers.Answers(ctx, url) }
}

var errNoMetric = errors.New("no such metric")

// metric returns one figure without labels of an admin port.
func metric(ctx context.Context, url, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%w: %s", errNoMetric, name)
}
