package manifests

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/wirepost/wirepost/shared/stream"
)

// settings are those that KEDA's scalers read: of others it says nothing.
var settings = map[string][]string{
	"nats-jetstream": {"natsServerMonitoringEndpoint", "account", "stream", "consumer"},
	"prometheus":     {"serverAddress", "query", "threshold", "ignoreNullValues"},
}

// scaled returns the ScaledObject of a workload, after what all of them have in common
// was checked. It is nil where nothing scales.
func scaled(o *overlay, name string) (*keda.ScaledObject, problems) {
	var p problems
	target, _ := o.workload(name)
	s, ok := named[*keda.ScaledObject](o, name)
	if !ok {
		if o.production() {
			p.add("nothing scales %s", name)
		} else if target.replicas == nil {
			p.add("nothing says how many %s there are", name)
		}
		return nil, p
	}
	if s.Spec.ScaleTargetRef.Name != name || s.Spec.ScaleTargetRef.Kind != "" {
		p.add("the ScaledObject %s scales %s", name, s.Spec.ScaleTargetRef.Name)
	}
	if d, ok := named[*appsv1.Deployment](o, name); !ok || d.Spec.Replicas != nil {
		p.add("%s is no Deployment, or has a number of replicas with which each apply undoes the scaling", name)
	}
	for what, err := range map[string]error{"triggers": keda.ValidateTriggers(s.Spec.Triggers),
		"bounds": keda.CheckReplicaCountBoundsAreValid(s), "fallback": keda.CheckFallbackValid(s)} {
		if err != nil {
			p.add("%s: KEDA refuses the %s: %v", name, what, err)
		}
	}
	for _, trigger := range s.Spec.Triggers {
		have := slices.Sorted(maps.Keys(trigger.Metadata))
		if want := slices.Sorted(slices.Values(settings[trigger.Type])); !slices.Equal(have, want) {
			p.add("%s: the trigger %s %s has %q, want %q", name, trigger.Type, trigger.Name, have, want)
		}
	}
	least, most, back := s.Spec.MinReplicaCount, s.Spec.MaxReplicaCount, s.Spec.Fallback
	switch {
	case least == nil || *least < 2 || most == nil || *most <= *least:
		p.add("%s: one that dies is all there is, or nothing scales", name)
	case back == nil || back.Behavior != keda.FallbackBehaviorCurrentReplicasIfHigher || back.Replicas < *least || back.Replicas > *most:
		p.add("%s: without figures it does not stay as large as it is", name)
	}
	return s, p
}

// down returns the one rule by which a ScaledObject takes pods away.
func down(s *keda.ScaledObject) (rule autoscalingv2.HPAScalingPolicy, window int32, ok bool) {
	if s.Spec.Advanced == nil || s.Spec.Advanced.HorizontalPodAutoscalerConfig == nil || s.Spec.Advanced.HorizontalPodAutoscalerConfig.Behavior == nil {
		return rule, 0, false
	}
	d := s.Spec.Advanced.HorizontalPodAutoscalerConfig.Behavior.ScaleDown
	if d == nil || d.StabilizationWindowSeconds == nil || len(d.Policies) != 1 {
		return rule, 0, false
	}
	return d.Policies[0], *d.StabilizationWindowSeconds, true
}

// checkWorkerScaling: the sum over all lanes divided by a batch, up to a worker a lane.
func checkWorkerScaling(t *testing.T, o *overlay) problems {
	s, p := scaled(o, "worker")
	if s == nil {
		return p
	}
	_, cfg := workerConfig(t, o)
	lanes := cfg.Layout.Lanes
	if int(*s.Spec.MaxReplicaCount) != lanes {
		p.add("at most %d workers for %d lanes", *s.Spec.MaxReplicaCount, lanes)
	}
	if len(s.Spec.Triggers) != lanes {
		p.add("%d triggers for %d lanes", len(s.Spec.Triggers), lanes)
	}
	for i, trigger := range s.Spec.Triggers {
		m := trigger.Metadata
		host, port, _ := strings.Cut(m["natsServerMonitoringEndpoint"], ":")
		if m["stream"] != stream.Up(i) || m["consumer"] != stream.Consumer {
			p.add("trigger %s looks at the consumer %s of %s, want %s of %s", trigger.Name, m["consumer"], m["stream"], stream.Consumer, stream.Up(i))
		}
		if number, _ := natsMonitor(o); !strings.HasSuffix(host, "."+namespace+".svc") || !resolves(o, host, port) || port != number {
			p.add("trigger %s asks %s, which is not the monitoring port of NATS as seen from another namespace", trigger.Name, m["natsServerMonitoringEndpoint"])
		}
		if account := natsAccount(t, o); m["account"] != account {
			p.add("trigger %s looks at the account %s, the streams are in %s", trigger.Name, m["account"], account)
		}
	}
	modifiers := s.Spec.Advanced.ScalingModifiers
	if modifiers.Target != strconv.Itoa(cfg.Work.Batch) || modifiers.MetricType != autoscalingv2.AverageValueMetricType {
		p.add("the target is %s %s, want an average of a batch, %d", modifiers.MetricType, modifiers.Target, cfg.Work.Batch)
	}
	if rule, window, ok := down(s); !ok || rule.Type != autoscalingv2.PodsScalingPolicy || rule.Value != 1 || rule.PeriodSeconds < 60 || window < 300 {
		p.add("workers go faster than one a minute after five quiet minutes")
	}
	return append(p, sumProblems(s)...)
}

// sumProblems lets KEDA compile the formula, and computes it: it must be the sum.
func sumProblems(s *keda.ScaledObject) (p problems) {
	formula, err := keda.ValidateAndCompileScalingModifiers(s.DeepCopy())
	if err != nil {
		return problems{"KEDA refuses the formula: " + err.Error()}
	}
	lag, want := map[string]any{}, 0.0
	for i, trigger := range s.Spec.Triggers {
		n := float64(uint64(1) << i) // so that each set of lanes has a sum of its own
		lag[trigger.Name], want = n, want+n
	}
	if got, err := expr.Run(formula, lag); err != nil || got != want {
		p.add("the formula gives %v (%v), the sum is %v", got, err, want)
	}
	return p
}

// checkEdgeScaling: by a metric that the edge has, half of what a pod is made for, and no
// faster down than a pod drains.
func checkEdgeScaling(_ *testing.T, o *overlay) problems {
	s, p := scaled(o, "edge")
	if s == nil {
		return p
	}
	pod, _ := o.workload("edge")
	for _, trigger := range s.Spec.Triggers {
		query := trigger.Metadata["query"]
		metric := regexp.MustCompile(`wirepost_[a-z_]+`).FindString(query)
		if !exported(metric) || !strings.Contains(query, `{namespace="`+namespace+`"}`) || !strings.HasPrefix(query, "sum(max by (pod) (") {
			p.add("%s is not the sum of a metric of the edges, each pod once", query)
		}
		if n, err := strconv.ParseInt(trigger.Metadata["threshold"], 10, 64); err != nil || n > sockets(pod)*6/10 {
			p.add("pods made for %d sockets are given %d on average", sockets(pod), n)
		}
		if trigger.Metadata["ignoreNullValues"] != "false" {
			p.add("no answer of Prometheus counts as no connections")
		}
	}
	rule, window, ok := down(s)
	if !ok || rule.Type != autoscalingv2.PodsScalingPolicy || rule.Value != 1 || rule.PeriodSeconds < 300 || window < 300 {
		p.add("edges go faster than one in five minutes")
	}
	if grace := pod.spec().TerminationGracePeriodSeconds; grace == nil || int64(rule.PeriodSeconds) < *grace {
		p.add("the next edge goes before the one before has drained")
	}
	return p
}

// exported reports whether the edge's sources have a metric of this name.
func exported(metric string) bool {
	found := false
	_ = filepath.WalkDir("../../edge", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "metrics.go") {
			return err
		}
		text, err := os.ReadFile(path)
		found = found || strings.Contains(string(text), `"`+metric+`"`)
		return err
	})
	return found && metric != ""
}
