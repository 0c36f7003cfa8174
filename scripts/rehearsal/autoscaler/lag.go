package autoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// ErrNoFigure is returned by Lag when a lane has no stream, or its consumer no leader
// that answers.
var ErrNoFigure = errors.New("no figure of a lane")

// jsz is the part of a nats-server's answer that KEDA reads.
type jsz struct {
	Accounts []struct {
		Name    string `json:"name"`
		Streams []struct {
			Name      string     `json:"name"`
			Consumers []consumer `json:"consumer_detail"`
		} `json:"stream_detail"`
	} `json:"account_details"`
}

type consumer struct {
	Name       string `json:"name"`
	AckPending uint64 `json:"num_ack_pending"`
	Pending    uint64 `json:"num_pending"`
	Cluster    *struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
}

// Lag returns the lag of each trigger by its name, as KEDA's nats-jetstream scaler has it:
// what waits for the consumer and what it has not acknowledged, in the words of the
// consumer's leader; others only know what they heard. monitors are the monitoring
// addresses of the nats-servers, by their names; one that does not answer leads nothing.
func (s *ScaledObject) Lag(ctx context.Context, monitors map[string]string) (map[string]float64, error) {
	lag := map[string]float64{}
	var failed error
	for server, addr := range monitors {
		for account := range s.accounts() {
			z, err := ask(ctx, addr, account)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", server, err))
				continue
			}
			s.take(lag, z, server, account)
		}
	}
	for _, t := range s.Triggers {
		if _, ok := lag[t.Name]; !ok {
			return nil, fmt.Errorf("%w: consumer %s of %s: %w", ErrNoFigure, t.Consumer, t.Stream, failed)
		}
	}
	return lag, nil
}

func (s *ScaledObject) accounts() map[string]bool {
	all := map[string]bool{}
	for _, t := range s.Triggers {
		all[t.Account] = true
	}
	return all
}

// take takes the figures of the consumers that a server leads. A consumer without a
// cluster is on a single server.
func (s *ScaledObject) take(lag map[string]float64, z *jsz, server, account string) {
	for _, a := range z.Accounts {
		for _, st := range a.Streams {
			for _, c := range st.Consumers {
				if a.Name != account || c.Cluster != nil && c.Cluster.Leader != server {
					continue
				}
				for _, t := range s.Triggers {
					if t.Account == account && t.Stream == st.Name && t.Consumer == c.Name {
						lag[t.Name] = float64(c.Pending + c.AckPending)
					}
				}
			}
		}
	}
}

func ask(ctx context.Context, addr, account string) (*jsz, error) {
	u := url.URL{Scheme: "http", Host: addr, Path: "/jsz", RawQuery: url.Values{"acc": {account}, "consumers": {"true"}, "config": {"true"}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	var z jsz
	if err := json.NewDecoder(res.Body).Decode(&z); err != nil {
		return nil, fmt.Errorf("jsz: %w", err)
	}
	return &z, nil
}
