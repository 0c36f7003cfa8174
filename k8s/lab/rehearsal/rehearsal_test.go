package rehearsal

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wirepost/wirepost/k8s/lab/cluster"
)

// TestLedLag: of a lane counts what its leader says of the workers' consumer: what waits,
// and what a worker has.
func TestLedLag(t *testing.T) {
	text := []byte(`{"account_details":[{"stream_detail":[
	 {"name":"UP_0","consumer_detail":[{"name":"work","num_pending":7,"num_ack_pending":3,"cluster":{"leader":"nats-1"}}]},
	 {"name":"UP_1","consumer_detail":[{"name":"work","num_pending":100,"cluster":{"leader":"nats-2"}}]},
	 {"name":"UP_2","consumer_detail":[{"name":"other","num_pending":100,"cluster":{"leader":"nats-1"}}]},
	 {"name":"UP_9","consumer_detail":[{"name":"work","num_pending":100,"cluster":{"leader":"nats-1"}}]},
	 {"name":"DEAD","consumer_detail":[{"name":"work","num_pending":100,"cluster":{"leader":"nats-1"}}]}]}]}`)
	got := map[string]int{}
	if err := ledLag(text, "nats-1", 8, got); err != nil || !maps.Equal(got, map[string]int{"UP_0": 10}) {
		t.Error(got, err)
	}
	if err := ledLag([]byte("not found"), "nats-1", 8, got); err == nil {
		t.Error("an answer that is none is taken")
	}
}

// TestTargets: pods that ask for it are scraped at their port and path, until they are gone.
func TestTargets(t *testing.T) {
	list := &targets{file: filepath.Join(t.TempDir(), "targets.json"), byPod: map[string]target{}}
	edge := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "edge-1", Namespace: "wirepost", Annotations: map[string]string{
		"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/metrics"}}, Status: corev1.PodStatus{PodIP: "10.244.0.2"}}
	nats := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "nats-0"}, Status: corev1.PodStatus{PodIP: "10.244.0.3"}}
	gone := edge.DeepCopy()
	gone.Status.PodIP = ""
	for _, c := range []struct {
		pod  *corev1.Pod
		want []string
	}{{edge, []string{"10.244.0.2:9090 wirepost edge-1 /metrics"}}, {nats, []string{"10.244.0.2:9090 wirepost edge-1 /metrics"}}, {gone, nil}} {
		if err := list.set(c.pod); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(list.file)
		if err != nil {
			t.Fatal(err)
		}
		var have []target
		if err := json.Unmarshal(text, &have); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range have {
			got = append(got, strings.Join(append(h.Targets, h.Labels["namespace"], h.Labels["pod"], h.Labels["__metrics_path__"]), " "))
		}
		if strings.Join(got, ", ") != strings.Join(c.want, ", ") {
			t.Errorf("%s: %q, want %q", c.pod.Name, got, c.want)
		}
	}
}

// TestFigures: when a row is worth a line, and when a number is settled.
func TestFigures(t *testing.T) {
	at := func(lag, pods int) figures {
		return figures{At: time.Duration(lag), Lag: lag, Stored: -lag, Worker: scale{Metric: lag, Pods: pods}}
	}
	for _, c := range []struct {
		now, before figures
		want        bool
	}{
		{at(10, 2), at(10, 2), false},
		{at(10, 2), at(20, 2), false}, // it drains
		{at(0, 2), at(20, 2), true},   // and has drained
		{at(10, 2), at(0, 2), true},
		{at(10, 3), at(20, 2), true},
	} {
		if got := c.now.changed(c.before); got != c.want {
			t.Errorf("%+v after %+v: %v", c.now, c.before, got)
		}
	}
	if s := (scale{Desired: 2, Pods: 2, Ready: 2, Running: 1}); s.settled(2) {
		t.Error("settled without the programs")
	}
	for _, c := range []struct {
		waiting, n, least int
		want              bool
	}{{512, 2, 2, true}, {512, 2, 3, false}, {512, 3, 2, false}, {513, 3, 2, true}, {9999, 8, 3, true}, {9999, 9, 3, false}} {
		f := figures{Lag: c.waiting, Worker: scale{Metric: c.waiting, Desired: c.n, Pods: c.n, Ready: c.n, Running: c.n}}
		if f.followed(c.least) != c.want {
			t.Errorf("%+v: %v", c, !c.want)
		}
		if f.Worker.Metric--; f.followed(c.least) {
			t.Errorf("%+v: followed, and KEDA counts another number", c)
		}
	}
}

// TestSizes: changes are noted once, from a time on, and one by one is neither by two nor
// half of the way nor up again.
func TestSizes(t *testing.T) {
	var s sizes
	s.add(9)
	began := s.all[0].at
	for _, n := range []int{9, 3, 2, 2, 1} {
		s.add(n)
	}
	steps := s.since(began)
	if got := steps.String(); got != "3, 2, 1" {
		t.Error(got)
	}
	for _, c := range []struct {
		steps    []int
		from, to int
		want     bool
	}{
		{[]int{3, 2, 1}, 4, 1, true},
		{[]int{3, 1}, 4, 1, false},
		{[]int{3, 2}, 4, 1, false},
		{[]int{3, 2, 3, 2, 1}, 4, 1, false},
		{nil, 4, 1, false},
	} {
		var s sizes
		for _, n := range c.steps {
			s.add(n)
		}
		if got := s.all.oneByOne(c.from, c.to); got != c.want {
			t.Errorf("%v: %v", c.steps, got)
		}
	}
}

// TestOverlay: what the scenario takes for granted of the overlay is so.
func TestOverlay(t *testing.T) {
	text, err := cluster.Render("../../overlays/production")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := cluster.Objects(text)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	number := func(value any) int { // int64 or float64
		n, _ := strconv.Atoi(fmt.Sprint(value))
		return n
	}
	for _, u := range objects {
		spec, _ := u.Object["spec"].(map[string]any)
		data, _ := u.Object["data"].(map[string]any)
		switch {
		case u.GetKind() == "ConfigMap" && strings.HasPrefix(u.GetName(), "layout"):
			found["lanes"] = data["LANES"] == fmt.Sprint(lanes)
		case u.GetKind() == "ScaledObject" && u.GetName() == "worker":
			found["2 to 8 workers"] = number(spec["minReplicaCount"]) == 2 && number(spec["maxReplicaCount"]) == lanes
			modifiers, _, _ := unstructured.NestedMap(spec, "advanced", "scalingModifiers")
			found["target"] = number(modifiers["target"]) == perWorker
		case u.GetKind() == "ScaledObject" && u.GetName() == "edge":
			found["3 edges"] = number(spec["minReplicaCount"]) == 3
		case u.GetKind() == "StatefulSet" && u.GetName() == "nats":
			found["3 servers"] = number(spec["replicas"]) == 3
		}
	}
	for _, what := range []string{"lanes", "2 to 8 workers", "target", "3 edges", "3 servers"} {
		if !found[what] {
			t.Errorf("not so: %s", what)
		}
	}
}
