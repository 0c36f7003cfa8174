package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	appsv1 "k8s.io/api/apps/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/wirepost/wirepost/edge"
)

// checkObjects: each object is there once and in the namespace; production holds no secret.
func checkObjects(_ *testing.T, o *overlay) (p problems) {
	seen := map[string]bool{}
	for _, obj := range o.objects {
		id := fmt.Sprintf("%T %s", obj, obj.GetName())
		if seen[id] {
			p.add("%s is there twice", id)
		}
		seen[id] = true
		if _, is := obj.(*corev1.Namespace); !is && obj.GetNamespace() != namespace {
			p.add("%s is in the namespace %q", id, obj.GetNamespace())
		}
		if _, is := obj.(*corev1.Secret); is && o.production() {
			p.add("%s: production ships no secret", id)
		}
	}
	for _, name := range []string{"edge", "worker", "nats"} {
		if _, ok := o.workload(name); !ok {
			p.add("there is no %s", name)
		}
	}
	return p
}

// selects reports whether a selector takes a workload's pods.
func selects(s *metav1.LabelSelector, w workload) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(w.template.Labels))
}

// checkSelectors: a workload's selector takes its own pods and nobody else's, and so do
// its spreading rules.
func checkSelectors(_ *testing.T, o *overlay) (p problems) {
	for _, w := range o.pods {
		for _, other := range o.pods {
			if own := w.GetName() == other.GetName(); selects(w.selector, other) != own {
				p.add("the selector of %s and the pods of %s: selected is not %v", w.GetName(), other.GetName(), own)
			}
		}
		keys := map[string]bool{}
		for _, c := range w.spec().TopologySpreadConstraints {
			keys[c.TopologyKey] = true
			if !selects(c.LabelSelector, w) {
				p.add("%s spreads pods that are not its own over %s", w.GetName(), c.TopologyKey)
			}
		}
		if w.GetName() == "mongodb" {
			continue // one node
		}
		for _, key := range []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"} {
			if !keys[key] {
				p.add("%s is not spread over %s", w.GetName(), key)
			}
		}
	}
	return p
}

// checkServices: each Service leads to one workload's ports, and a StatefulSet's Service
// gives its pods names.
func checkServices(_ *testing.T, o *overlay) (p problems) {
	for _, s := range all[*corev1.Service](o) {
		w, ok := behind(o, s)
		if !ok {
			p.add("the Service %s does not lead to one workload", s.Name)
			continue
		}
		for _, port := range s.Spec.Ports {
			if _, ok := containerPort(w, port.TargetPort.String()); !ok {
				p.add("the Service %s leads to the port %s, which %s does not have", s.Name, port.TargetPort.String(), w.GetName())
			}
		}
	}
	for _, set := range all[*appsv1.StatefulSet](o) {
		s, ok := named[*corev1.Service](o, set.Spec.ServiceName)
		w, leads := workload{}, false
		if ok {
			w, leads = behind(o, s)
		}
		if !leads || w.GetName() != set.Name || s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
			p.add("%s has no headless Service %q that names its pods before they are ready", set.Name, set.Spec.ServiceName)
		}
	}
	return p
}

// behind returns the one workload that a Service leads to.
func behind(o *overlay, s *corev1.Service) (workload, bool) {
	var found []workload
	for _, w := range o.pods {
		if selects(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}, w) {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		return workload{}, false
	}
	return found[0], true
}

// containerPort returns the number of a workload's port by its name or its number.
func containerPort(w workload, port string) (int32, bool) {
	for _, c := range w.container().Ports {
		if c.Name == port || fmt.Sprint(c.ContainerPort) == port {
			return c.ContainerPort, true
		}
	}
	return 0, false
}

// resolves reports whether host:port is a Service, or a pod that one gives a name to, and
// has the port.
func resolves(o *overlay, host, port string) bool {
	host = strings.TrimSuffix(host, ".cluster.local")
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".svc"), "."+namespace)
	service := host
	pod, rest, isPod := strings.Cut(host, ".")
	if isPod {
		service = rest
	}
	s, ok := named[*corev1.Service](o, service)
	if !ok || !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return fmt.Sprint(p.Port) == port }) {
		return false
	}
	if !isPod {
		return true
	}
	w, ok := behind(o, s)
	if !ok || w.kind != "StatefulSet" || w.replicas == nil {
		return false
	}
	for i := range *w.replicas {
		if pod == fmt.Sprintf("%s-%d", w.GetName(), i) {
			return true
		}
	}
	return false
}

// checkRoute: the gateway's listener leads to the edges' Service under the path that edges
// serve, and cuts no connection.
func checkRoute(t *testing.T, o *overlay) (p problems) {
	routes := all[*gatewayv1.HTTPRoute](o)
	if len(routes) == 0 {
		if o.production() {
			p.add("there is no route")
		}
		return p
	}
	_, cfg := edgeConfig(t, o)
	for _, r := range routes {
		for _, parent := range r.Spec.ParentRefs {
			if !listens(o, parent, r.Spec.Hostnames) {
				p.add("%s: no Gateway %s has a listener for it", r.Name, parent.Name)
			}
		}
		for _, rule := range r.Spec.Rules {
			p = append(p, ruleProblems(o, rule, cfg)...)
		}
	}
	return p
}

func listens(o *overlay, parent gatewayv1.ParentReference, hosts []gatewayv1.Hostname) bool {
	g, ok := named[*gatewayv1.Gateway](o, string(parent.Name))
	if !ok || len(hosts) == 0 || parent.SectionName == nil {
		return false
	}
	return slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool {
		return l.Name == *parent.SectionName && l.Hostname != nil && slices.Contains(hosts, *l.Hostname) &&
			l.TLS != nil && len(l.TLS.CertificateRefs) == 1
	})
}

func ruleProblems(o *overlay, rule gatewayv1.HTTPRouteRule, cfg edge.Config) (p problems) {
	for _, m := range rule.Matches {
		if m.Path == nil || *m.Path.Value != cfg.PathPrefix || *m.Path.Type != gatewayv1.PathMatchPathPrefix {
			p.add("the route is not for %s and what is below it", cfg.PathPrefix)
		}
	}
	if rule.Timeouts == nil || rule.Timeouts.Request == nil || *rule.Timeouts.Request != "0s" {
		p.add("the route cuts WebSockets at a timeout")
	}
	for _, b := range rule.BackendRefs {
		s, ok := named[*corev1.Service](o, string(b.Name))
		if !ok || b.Port == nil || !slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool {
			return port.Port == *b.Port && port.AppProtocol != nil && *port.AppProtocol == "kubernetes.io/ws"
		}) {
			p.add("the route leads to %s, which has no such port for WebSockets", b.Name)
		}
	}
	if len(rule.Matches) == 0 || len(rule.BackendRefs) == 0 {
		p.add("the route is for nothing or leads nowhere")
	}
	return p
}
