package autoscaler_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/rehearsal/autoscaler"
)

const shipped = "../../../k8s/overlays/production/worker-scaling.yaml"

func load(t *testing.T) *autoscaler.ScaledObject {
	t.Helper()
	s, err := autoscaler.Load(shipped)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheShippedManifest(t *testing.T) {
	s := load(t)
	if s.Min != 2 || s.Max != 8 || s.Target != 256 || len(s.Triggers) != 8 ||
		s.Up.Window != 30*time.Second || len(s.Up.Policies) != 2 || s.Down.Window != 5*time.Minute || len(s.Down.Policies) != 1 {
		t.Errorf("%+v", s)
	}
	if first := s.Triggers[0]; first != (autoscaler.Trigger{Name: "lane0", Account: "WIREPOST", Stream: "UP_0", Consumer: "work"}) {
		t.Errorf("%+v", first)
	}
	lag := map[string]float64{}
	for i, tr := range s.Triggers {
		lag[tr.Name] = float64(int(1) << i)
	}
	if sum, err := s.Sum(lag); err != nil || sum != 255 {
		t.Errorf("the formula gives %v, %v", sum, err)
	}
	if f := s.Faster(10).Smaller(2); f.Down.Window != 30*time.Second || f.Up.Policies[0].Period != 3*time.Second || f.Target != 128 || s.Target != 256 {
		t.Errorf("%+v", f)
	}
}

// What this package does not follow it does not read over.
func TestOtherManifests(t *testing.T) {
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		"kind: ScaledObject":             "kind: ScaledJob",
		"metricType: AverageValue":       "metricType: Value",
		`target: "256"`:                  `target: "0"`,
		"formula: lane0 +":               "formula: lane9 +",
		"selectPolicy: Max":              "selectPolicy: Min",
		"type: nats-jetstream, name: la": "type: kafka, name: la",
		"{type: Pods, value: 1,":         "{type: Nodes, value: 1,",
	} {
		changed := strings.ReplaceAll(string(text), old, new)
		if changed == string(text) {
			t.Fatalf("the manifest has no %q", old)
		}
		file := filepath.Join(t.TempDir(), "scaling.yaml")
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := autoscaler.Load(file); err == nil {
			t.Errorf("%q is taken", new)
		}
	}
}

// moment is one look at the figure.
type moment struct {
	after time.Duration // since the one before
	sum   float64
	want  int
}

// What the numbers are with the shipped rules, worked out by hand from the documentation
// of the HorizontalPodAutoscaler.
func TestHPA(t *testing.T) {
	const tick = 15 * time.Second
	for name, c := range map[string]struct {
		from    int
		moments []moment
	}{
		"little to do":             {2, []moment{{tick, 0, 2}, {tick, 200, 2}}},
		"within the tolerance":     {4, []moment{{time.Minute, 1.09 * 4 * 256, 4}, {time.Minute, 0.91 * 4 * 256, 4}}},
		"a short peak":             {2, []moment{{tick, 5000, 2}, {tick, 0, 2}, {tick, 5000, 2}}},
		"a long one, by twos":      {2, []moment{{tick, 5000, 2}, {tick, 5000, 4}, {tick, 5000, 4}, {tick, 5000, 8}, {tick, 5000, 8}}},
		"no further than its need": {2, []moment{{tick, 700, 2}, {tick, 700, 3}}},
		"never more than lanes":    {8, []moment{{10 * time.Minute, 1e6, 8}}},
		"down after five minutes, one a minute": {4, []moment{{tick, 0, 4}, {time.Minute, 0, 4}, {3 * time.Minute, 0, 4},
			{time.Minute, 0, 3}, {tick, 0, 3}, {45 * time.Second, 0, 2}, {time.Minute, 0, 2}}},
		"a peak on the way down stays": {4, []moment{{5 * time.Minute, 0, 3}, {tick, 1000, 3}, {tick, 1000, 4}, {4 * time.Minute, 0, 4}}},
	} {
		now := time.Unix(0, 0)
		h := autoscaler.NewHPA(load(t), now, c.from)
		n := c.from
		var got, want []int
		for _, m := range c.moments {
			now = now.Add(m.after)
			n = h.Next(now, n, m.sum)
			got, want = append(got, n), append(want, m.want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// server answers /jsz as a nats-server of a cluster does; consumers are lines of its
// answer.
func server(t *testing.T, account string, consumers ...string) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jsz" || r.FormValue("acc") != account || r.FormValue("consumers") != "true" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"account_details":[{"name":%q,"stream_detail":[`, account)
		for i, c := range consumers {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"name":"UP_%d","consumer_detail":[{"name":"other","num_pending":99},%s]}`, i, c)
		}
		fmt.Fprint(w, `]}]}`)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func work(leader string, pending, unacked int) string {
	return fmt.Sprintf(`{"name":"work","num_pending":%d,"num_ack_pending":%d,"cluster":{"leader":%q}}`, pending, unacked, leader)
}

// A lane's lag is what its consumer's leader says, whatever the others heard.
func TestLag(t *testing.T) {
	s := load(t)
	s.Triggers = s.Triggers[:2]
	monitors := map[string]string{
		"nats-0": server(t, "WIREPOST", work("nats-0", 5, 2), work("nats-1", 1000, 0)),
		"nats-1": server(t, "WIREPOST", work("nats-0", 1000, 0), work("nats-1", 0, 4)),
	}
	lag, err := s.Lag(t.Context(), monitors)
	if err != nil || len(lag) != 2 || lag["lane0"] != 7 || lag["lane1"] != 4 {
		t.Errorf("%v, %v", lag, err)
	}
	delete(monitors, "nats-1") // it is away, and still called the leader
	if _, err := s.Lag(t.Context(), monitors); !errors.Is(err, autoscaler.ErrNoFigure) {
		t.Errorf("without the leader: %v", err)
	}
}
