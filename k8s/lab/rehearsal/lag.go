package rehearsal

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/wirepost/wirepost/shared/stream"
)

// jsz is what nats-server tells about JetStream, as far as it counts here.
type jsz struct {
	Accounts []struct {
		Streams []struct {
			Name      string
			Consumers []struct {
				Name          string `json:"name"`
				NumPending    int    `json:"num_pending"`
				NumAckPending int    `json:"num_ack_pending"`
				Cluster       struct {
					Leader string `json:"leader"`
				} `json:"cluster"`
			} `json:"consumer_detail"`
		} `json:"stream_detail"`
	} `json:"account_details"`
}

// ledLag adds to lag what the lanes that this server leads have: messages that wait, and
// those that a worker has. Only a leader knows.
func ledLag(text []byte, server string, lanes int, lag map[string]int) error {
	var j jsz
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	up := map[string]bool{}
	for i := range lanes {
		up[stream.Up(i)] = true
	}
	for _, account := range j.Accounts {
		for _, s := range account.Streams {
			for _, c := range s.Consumers {
				if up[s.Name] && c.Name == stream.Consumer && c.Cluster.Leader == server {
					lag[s.Name] = c.NumPending + c.NumAckPending
				}
			}
		}
	}
	return nil
}

// lag returns what waits in all lanes, asked of each server at the address of its pod. It
// fails while a lane has no leader.
func lag(ctx context.Context, servers map[string]string, lanes int) (total int, err error) {
	byLane := map[string]int{}
	for name, address := range servers {
		text, err := fetch(ctx, "http://"+address+":8222/jsz?acc=WIREPOST&consumers=true")
		if err != nil {
			return 0, err
		}
		if err := ledLag(text, name, lanes, byLane); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, n := range byLane {
		total += n
	}
	if len(byLane) != lanes {
		err = fmt.Errorf("%d of %d lanes have a leader", len(byLane), lanes)
	}
	return total, err
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 16<<20))
}
