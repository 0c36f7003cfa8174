package rehearsal

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scale is a Deployment and what scales it.
type scale struct {
	Metric  int // what KEDA answers the HPA controller: a sum
	Desired int // what the HPA controller made of it
	Pods    int // that the Deployment wants
	Ready   int // as the fake nodes say
	Running int // programs that run for them
}

// settled reports whether there are n, all the way from the HPA to the programs.
func (s scale) settled(n int) bool {
	return s.Desired == n && s.Pods == n && s.Ready == n && s.Running == n
}

// figures are one look at the system.
type figures struct {
	At           time.Duration // since the beginning
	Lag          int           // in all lanes, asked of NATS
	Worker, Edge scale
	Sent, Stored int // messages of the crowd
}

const header = `          ┌──────────── workers ────────────┐  ┌───── edges ─────────────┐
   time   waiting   KEDA  HPA  pods running    KEDA  HPA  pods running   acknowledged`

// row writes the figures as a line of the table.
func (f figures) row(w io.Writer) {
	fmt.Fprintf(w, "%5.0f s  %8d %6d %4d %5d %7d  %6d %4d %5d %7d   %d of %d\n", f.At.Seconds(), f.Lag,
		f.Worker.Metric, f.Worker.Desired, f.Worker.Pods, f.Worker.Running,
		f.Edge.Metric, f.Edge.Desired, f.Edge.Pods, f.Edge.Running, f.Stored, f.Sent)
}

// changed reports whether a row is worth a line at once: another number of something, or
// the first that waits, or none any more.
func (f figures) changed(before figures) bool {
	for _, one := range []*figures{&f, &before} {
		one.At, one.Lag, one.Sent, one.Stored = 0, min(one.Lag, 1), 0, 0
		one.Worker.Metric, one.Edge.Metric = 0, 0
	}
	return f != before
}

// look reads all figures.
func (r *run) look(ctx context.Context) (f figures, err error) {
	f.At = time.Since(r.began)
	if f.Worker, err = r.scale(ctx, "worker"); err != nil {
		return f, err
	}
	if f.Edge, err = r.scale(ctx, "edge"); err != nil {
		return f, err
	}
	servers, err := r.natsServers(ctx)
	if err != nil {
		return f, err
	}
	if f.Lag, err = lag(ctx, servers, lanes); err != nil {
		return f, err
	}
	f.Sent, f.Stored = r.crowd.Stored()
	return f, nil
}

func (r *run) scale(ctx context.Context, name string) (s scale, err error) {
	var d appsv1.Deployment
	if err := r.cluster.Get(ctx, appsv1.SchemeGroupVersion.WithKind("Deployment"), namespace, name, &d); err != nil {
		return s, err
	}
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := r.cluster.Get(ctx, autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), namespace, "keda-hpa-"+name, &h); err != nil {
		return s, err
	}
	if len(h.Spec.Metrics) != 1 || h.Spec.Metrics[0].External == nil {
		return s, fmt.Errorf("the HPA of %s has not one external metric: %+v", name, h.Spec.Metrics)
	}
	if s.Metric, err = r.external(ctx, h.Spec.Metrics[0].External.Metric); err != nil {
		return s, err
	}
	if d.Spec.Replicas != nil {
		s.Pods = int(*d.Spec.Replicas)
	}
	s.Desired, s.Ready, s.Running = int(h.Status.DesiredReplicas), int(d.Status.ReadyReplicas), r.runner.Running(name)
	return s, nil
}

// external asks for a metric as the HPA controller does: of the API server, which asks KEDA,
// which asks NATS or Prometheus.
func (r *run) external(ctx context.Context, m autoscalingv2.MetricIdentifier) (int, error) {
	path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + namespace + "/" + m.Name +
		"?labelSelector=" + url.QueryEscape(metav1.FormatLabelSelector(m.Selector))
	text, err := r.cluster.Raw(ctx, path)
	if err != nil {
		return 0, err
	}
	var list struct {
		Items []struct{ Value resource.Quantity }
	}
	if err := json.Unmarshal(text, &list); err != nil || len(list.Items) != 1 {
		return 0, fmt.Errorf("%s: not one value in %s (%v)", m.Name, text, err)
	}
	return int(list.Items[0].Value.Value()), nil
}

// natsServers returns the addresses of the NATS servers by their names.
func (r *run) natsServers(ctx context.Context) (map[string]string, error) {
	servers := map[string]string{}
	for i := range 3 {
		var p corev1.Pod
		name := fmt.Sprintf("nats-%d", i)
		if err := r.cluster.Get(ctx, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, name, &p); err != nil {
			return nil, err
		}
		servers[name] = p.Status.PodIP
	}
	return servers, nil
}
