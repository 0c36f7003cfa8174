package manifests

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// socketsAnnotation says how many sockets an edge's pod is made for.
	socketsAnnotation = "wirepost/sockets-per-pod"
	// kernelSocket is what the kernel needs for a socket, in bytes (docs/load.md).
	kernelSocket = 4 << 10
	// natsMemory is how many tenths of the downlink's bytes NATS needs in memory (README.md).
	natsMemory = 25
	// drainRest is what a drain needs beyond its notice and its rate (README.md).
	drainRest = 50 * time.Second
	// workerStop is what a worker needs to stop at most: base/worker.yaml has the sum.
	workerStop = 43 * time.Second
)

// TestWorkerStop adds up what worker.go gives each of its parts to stop.
func TestWorkerStop(t *testing.T) {
	text, err := os.ReadFile("../../worker/worker.go")
	if err != nil {
		t.Fatal(err)
	}
	takes := map[string]time.Duration{}
	for _, m := range regexp.MustCompile(`(?m)^\s(\w+Stop) += (\d+) \* time\.Second$`).FindAllSubmatch(text, -1) {
		n, _ := strconv.Atoi(string(m[2]))
		takes[string(m[1])] = time.Duration(n) * time.Second
	}
	sum, parts := 12*time.Second, regexp.MustCompile(`stops\.Push\("[^"]+", (\w+),`).FindAllSubmatch(text, -1) // the lanes: batches, and giving them back
	for _, part := range parts {
		sum += takes[string(part[1])]
	}
	if len(parts) != 7 || sum != workerStop {
		t.Errorf("%d parts of a worker need %v to stop, the grace periods are for 7 and %v", len(parts), sum, workerStop)
	}
}

// checkPorts: the ports that the configurations name are those of the containers, and
// Prometheus is sent to the admin port.
func checkPorts(t *testing.T, o *overlay) (p problems) {
	_, e := edgeConfig(t, o)
	_, w := workerConfig(t, o)
	for _, c := range []struct{ pod, port, listen string }{
		{"edge", "ws", e.Listen}, {"edge", "admin", e.AdminListen}, {"worker", "admin", w.AdminListen},
	} {
		pod, _ := o.workload(c.pod)
		number, ok := containerPort(pod, c.port)
		if !ok || c.listen != fmt.Sprintf(":%d", number) {
			p.add("%s listens on %q, and its port %s is %d", c.pod, c.listen, c.port, number)
		}
		if a := pod.template.Annotations; c.port == "admin" && (a["prometheus.io/port"] != fmt.Sprint(number) || a["prometheus.io/scrape"] != "true" || a["prometheus.io/path"] != "/metrics") {
			p.add("%s: Prometheus is not sent to the admin port", c.pod)
		}
	}
	return p
}

// checkGrace: nobody is killed before it has stopped in order.
func checkGrace(t *testing.T, o *overlay) (p problems) {
	_, e := edgeConfig(t, o)
	needs := map[string]time.Duration{"worker": workerStop, "nats": natsStop(t, o), "mongodb": 30 * time.Second}
	if pod, ok := o.workload("edge"); ok && e.Sockets.DrainRate > 0 {
		if r := pod.container().ReadinessProbe; r == nil || e.Sockets.DrainNotice < time.Duration(r.PeriodSeconds*r.FailureThreshold)*time.Second {
			p.add("the drain begins before readiness was seen to be off")
		}
		needs["edge"] = e.Sockets.DrainNotice + time.Duration(sockets(pod))*time.Second/time.Duration(e.Sockets.DrainRate) + drainRest
	}
	for _, w := range o.pods {
		need, known := needs[w.GetName()]
		if grace := w.spec().TerminationGracePeriodSeconds; !known || grace == nil || time.Duration(*grace)*time.Second <= need {
			p.add("the grace period of %s is not longer than the %v that it needs", w.GetName(), need)
		}
	}
	return p
}

// sockets is how many sockets an edge's pod is made for; -1 when it does not say.
func sockets(w workload) int64 {
	n, err := strconv.ParseInt(w.template.Annotations[socketsAnnotation], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// checkMemory: Go hears of its limit before the kernel acts, and what the kernel needs for
// an edge's sockets is left.
func checkMemory(t *testing.T, o *overlay) (p problems) {
	_, cfg := workerConfig(t, o)
	if nats, _ := o.workload("nats"); goMemLimit(nats) < cfg.Layout.DownlinkMaxBytes*natsMemory/10 {
		p.add("nats may use %d bytes of memory for a downlink of %d", goMemLimit(nats), cfg.Layout.DownlinkMaxBytes)
	}
	for _, w := range o.pods {
		r := w.container().Resources
		limit, request := r.Limits.Memory().Value(), r.Requests.Memory().Value()
		if limit == 0 || limit != request || r.Requests.Cpu().IsZero() {
			p.add("%s: memory is asked for with %d and limited to %d, CPU with %v", w.GetName(), request, limit, r.Requests.Cpu())
		}
		if w.GetName() == "mongodb" {
			continue
		}
		kernel := limit / 20
		if w.GetName() == "edge" {
			n := sockets(w)
			if n <= 0 {
				p.add("edge does not say how many sockets it is made for")
			}
			kernel += n * kernelSocket
		}
		if soft := goMemLimit(w); soft <= 0 || soft > limit-kernel {
			p.add("%s: GOMEMLIMIT is %d, the limit %d, of which the kernel needs %d", w.GetName(), soft, limit, kernel)
		}
	}
	return p
}

// goMemLimit is the container's GOMEMLIMIT in bytes; 0 when it is not set or not valid.
func goMemLimit(w workload) int64 {
	for _, e := range w.container().Env {
		if e.Name == "GOMEMLIMIT" {
			q, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
			if err != nil || !strings.HasSuffix(e.Value, "iB") {
				return 0
			}
			return q.Value()
		}
	}
	return 0
}

// checkSecurity: Kubernetes' restricted standard, and nothing of the container can be
// written to.
func checkSecurity(_ *testing.T, o *overlay) (p problems) {
	for _, w := range o.pods {
		pod, c := w.spec().SecurityContext, w.container().SecurityContext
		if pod == nil || pod.RunAsNonRoot == nil || !*pod.RunAsNonRoot || pod.RunAsUser == nil || *pod.RunAsUser == 0 ||
			pod.SeccompProfile == nil || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			p.add("%s may run as root or without seccomp", w.GetName())
		}
		if c == nil || c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation || c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem ||
			c.Capabilities == nil || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL" || len(c.Capabilities.Add) > 0 || c.Privileged != nil {
			p.add("%s may write to its image or has rights to lose", w.GetName())
		}
		if mount := w.spec().AutomountServiceAccountToken; mount == nil || *mount {
			p.add("%s holds a token for the Kubernetes API", w.GetName())
		}
		if s := w.spec(); s.HostNetwork || s.HostPID || s.HostIPC {
			p.add("%s is in the host's namespaces", w.GetName())
		}
	}
	for _, ns := range all[*corev1.Namespace](o) {
		if ns.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			p.add("the namespace %s does not insist on that", ns.Name)
		}
	}
	return p
}

// checkDisruption: each workload that has more than one pod loses one of them at a time.
func checkDisruption(_ *testing.T, o *overlay) (p problems) {
	for _, name := range []string{"edge", "worker", "nats"} {
		w, _ := o.workload(name)
		n := 0
		for _, b := range all[*policyv1.PodDisruptionBudget](o) {
			if selects(b.Spec.Selector, w) {
				n++
				if b.Spec.MaxUnavailable == nil || b.Spec.MaxUnavailable.String() != "1" || b.Spec.MinAvailable != nil {
					p.add("the budget %s does not say: one at a time", b.Name)
				}
			}
		}
		if n != 1 {
			p.add("%s has %d disruption budgets", name, n)
		}
	}
	return p
}

// checkImages: each image has a tag that says what it is, and those of the project are
// named as make images names them.
func checkImages(_ *testing.T, o *overlay) (p problems) {
	for _, w := range o.pods {
		image := w.container().Image
		name, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
		if !ok || tag == "" || tag == "latest" {
			p.add("%s: the image %s can be anything", w.GetName(), image)
		}
		if own := w.GetName() == "edge" || w.GetName() == "worker"; own && name != w.GetName() {
			p.add("%s runs the image %s", w.GetName(), image)
		}
	}
	return p
}
