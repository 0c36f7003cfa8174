package manifests

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// peer is a pod or something outside, as network policies see it.
type peer struct {
	name      string
	namespace string // "" is outside of the cluster
	labels    map[string]string
}

// peers are all that the policies are asked about.
func peers(o *overlay) []peer {
	all := []peer{
		{name: "keda", namespace: "keda"},
		{name: "prometheus", namespace: "monitoring"},
		{name: "dns", namespace: "kube-system", labels: map[string]string{"k8s-app": "kube-dns"}},
		{name: "other pod of kube-system", namespace: "kube-system"},
		{name: "gateway", namespace: o.gateway},
		{name: "stranger", namespace: "default"},
		{name: "neighbour", namespace: namespace, labels: map[string]string{nameLabel: "neighbour"}},
		{name: "internet"},
	}
	if o.production() {
		all = append(all, peer{name: "mongodb", namespace: "mongodb"})
	}
	for _, w := range o.pods {
		all = append(all, peer{name: w.GetName(), namespace: namespace, labels: w.template.Labels})
	}
	return all
}

// mayReach lists, for each port, who may come to it. What is not here is refused.
var mayReach = map[string]map[int32][]string{
	"edge":    {8080: {"gateway"}, 9090: {"prometheus"}},
	"worker":  {9091: {"prometheus"}},
	"nats":    {4222: {"edge", "worker"}, 6222: {"nats"}, 8222: {"keda", "prometheus"}},
	"dns":     {53: {"edge", "worker", "nats", "mongodb", "neighbour"}},
	"mongodb": {27017: {"worker", "mongodb"}},
}

// ours are the peers whose traffic the policies of the namespace rule.
func (p peer) ours() bool { return p.namespace == namespace }

// checkNetwork asks for each pair of peers and each port whether the policies of the one
// let it out to the other, and those of the other let it in. Each side alone must hold.
func checkNetwork(_ *testing.T, o *overlay) (p problems) {
	policies := all[*networkingv1.NetworkPolicy](o)
	ports := []int32{53, 80, 443, 4222, 6222, 8080, 8222, 9090, 9091, 27017}
	for _, from := range peers(o) {
		for _, to := range peers(o) {
			for _, port := range ports {
				named := slices.Contains(mayReach[to.name][port], from.name)
				if got := allows(policies, networkingv1.PolicyTypeEgress, from, to, port); from.ours() && got != named {
					p.add("%s is let out to port %d of %s: %v, want %v", from.name, port, to.name, got, named)
				}
				if got := allows(policies, networkingv1.PolicyTypeIngress, to, from, port); to.ours() && got != named {
					p.add("%s is let in to port %d of %s: %v, want %v", from.name, port, to.name, got, named)
				}
			}
		}
	}
	return p
}

// allows reports whether the policies of self let other in, or self out to other. Without
// a policy for self in that direction everything is allowed.
func allows(policies []*networkingv1.NetworkPolicy, direction networkingv1.PolicyType, self, other peer, port int32) bool {
	ruled := false
	for _, np := range policies {
		if np.Namespace != self.namespace || !slices.Contains(np.Spec.PolicyTypes, direction) || !matches(&np.Spec.PodSelector, self.labels) {
			continue
		}
		ruled = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range np.Spec.Ingress {
				if names(rule.From, np.Namespace, other) && hasPort(rule.Ports, port) {
					return true
				}
			}
			continue
		}
		for _, rule := range np.Spec.Egress {
			if names(rule.To, np.Namespace, other) && hasPort(rule.Ports, port) {
				return true
			}
		}
	}
	return !ruled
}

// names reports whether a rule of a policy in a namespace is about the peer. A rule
// without peers is about everybody.
func names(rule []networkingv1.NetworkPolicyPeer, own string, other peer) bool {
	return len(rule) == 0 || slices.ContainsFunc(rule, func(r networkingv1.NetworkPolicyPeer) bool {
		if r.IPBlock != nil || other.namespace == "" {
			return false // no overlay ships an address
		}
		inside := other.namespace == own
		if r.NamespaceSelector != nil {
			inside = matches(r.NamespaceSelector, map[string]string{corev1.LabelMetadataName: other.namespace})
		}
		return inside && (r.PodSelector == nil || matches(r.PodSelector, other.labels))
	})
}

func matches(s *metav1.LabelSelector, set map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(set))
}

// hasPort reports whether a rule is about a TCP port. A rule without ports is about all.
func hasPort(ports []networkingv1.NetworkPolicyPort, port int32) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		// Numbers, not names: a name in an egress rule is not understood by every plugin.
		return p.Port != nil && p.Port.Type == intstr.Int && p.Port.IntVal == port && p.EndPort == nil &&
			(p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP)
	})
}

// TestMongoDBPolicy: the policy for the database's own namespace lets in workers and the
// namespace itself.
func TestMongoDBPolicy(t *testing.T) {
	text, err := render("../mongodb")
	if err != nil {
		t.Fatal(err)
	}
	decoded, _, err := strict().Decode(text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	np := decoded.(*networkingv1.NetworkPolicy)
	np.Namespace = "mongodb" // kubectl apply -n mongodb
	to := peer{name: "mongodb", namespace: "mongodb"}
	for _, from := range append(peers(load(t, "production")), to) {
		want := from.name == "worker" || from.name == "mongodb"
		if got := allows([]*networkingv1.NetworkPolicy{np}, networkingv1.PolicyTypeIngress, to, from, 27017); got != want {
			t.Errorf("%s comes in: %v", from.name, got)
		}
	}
}
