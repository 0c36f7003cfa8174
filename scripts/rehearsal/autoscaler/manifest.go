package autoscaler

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"go.yaml.in/yaml/v3"
)

// errManifest is returned for a ScaledObject that this package cannot follow.
var errManifest = errors.New("a ScaledObject that the rehearsal does not understand")

// ScaledObject is what the shipped manifest says.
type ScaledObject struct {
	Min, Max int
	Target   float64 // of the formula's result, a worker
	Triggers []Trigger
	Up, Down Rules
	formula  *vm.Program
}

// Trigger is a lane: the consumer whose lag KEDA reads.
type Trigger struct{ Name, Account, Stream, Consumer string }

// Rules bound changes in one direction.
type Rules struct {
	Window   time.Duration // the recommendations of this long ago count, too
	Policies []Policy
}

// Policy allows so many workers more or less in a period: Value of them, or percent of
// those that there were.
type Policy struct {
	Percent bool
	Value   int
	Period  time.Duration
}

// manifest is the part of the file that is read here.
type manifest struct {
	Kind string
	Spec struct {
		MinReplicaCount, MaxReplicaCount int
		Advanced                         struct {
			ScalingModifiers              struct{ Formula, Target, MetricType string }
			HorizontalPodAutoscalerConfig struct {
				Behavior struct{ ScaleUp, ScaleDown rules }
			}
		}
		Triggers []struct {
			Type, Name string
			Metadata   map[string]string
		}
	}
}

type rules struct {
	StabilizationWindowSeconds int
	SelectPolicy               string
	Policies                   []struct {
		Type                 string
		Value, PeriodSeconds int
	}
}

// Load reads the manifest.
func Load(file string) (*ScaledObject, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := decode(text, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s, err := m.scaledObject()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// decode reads YAML by way of JSON, as Kubernetes does: names are in camel case.
func decode(text []byte, into any) error {
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return err
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func (m *manifest) scaledObject() (*ScaledObject, error) {
	modifiers := m.Spec.Advanced.ScalingModifiers
	if m.Kind != "ScaledObject" || modifiers.MetricType != "AverageValue" || m.Spec.MinReplicaCount < 1 || m.Spec.MaxReplicaCount < m.Spec.MinReplicaCount {
		return nil, errManifest
	}
	s := &ScaledObject{Min: m.Spec.MinReplicaCount, Max: m.Spec.MaxReplicaCount}
	var err error
	if s.Target, err = strconv.ParseFloat(modifiers.Target, 64); err != nil || s.Target <= 0 {
		return nil, fmt.Errorf("%w: target %q", errManifest, modifiers.Target)
	}
	lag := map[string]float64{}
	for _, t := range m.Spec.Triggers {
		if t.Type != "nats-jetstream" {
			return nil, fmt.Errorf("%w: a trigger of type %q", errManifest, t.Type)
		}
		lag[t.Name] = 0
		s.Triggers = append(s.Triggers, Trigger{t.Name, t.Metadata["account"], t.Metadata["stream"], t.Metadata["consumer"]})
	}
	if s.formula, err = expr.Compile(modifiers.Formula, expr.Env(lag), expr.AsFloat64()); err != nil {
		return nil, fmt.Errorf("%w: formula: %w", errManifest, err)
	}
	behavior := m.Spec.Advanced.HorizontalPodAutoscalerConfig.Behavior
	if s.Up, err = behavior.ScaleUp.rules(); err != nil {
		return nil, err
	}
	s.Down, err = behavior.ScaleDown.rules()
	return s, err
}

func (r rules) rules() (Rules, error) {
	if len(r.Policies) == 0 || r.SelectPolicy != "" && r.SelectPolicy != "Max" {
		return Rules{}, fmt.Errorf("%w: policies %+v", errManifest, r)
	}
	out := Rules{Window: time.Duration(r.StabilizationWindowSeconds) * time.Second}
	for _, p := range r.Policies {
		if p.Type != "Pods" && p.Type != "Percent" || p.Value < 1 || p.PeriodSeconds < 1 {
			return Rules{}, fmt.Errorf("%w: policy %+v", errManifest, p)
		}
		out.Policies = append(out.Policies, Policy{Percent: p.Type == "Percent", Value: p.Value, Period: time.Duration(p.PeriodSeconds) * time.Second})
	}
	return out, nil
}

// Sum applies the formula to the lag of each trigger, by its name.
func (s *ScaledObject) Sum(lag map[string]float64) (float64, error) {
	out, err := expr.Run(s.formula, lag)
	if err != nil {
		return 0, fmt.Errorf("formula: %w", err)
	}
	return out.(float64), nil // AsFloat64
}

// Faster returns the same with all times divided, so that a rehearsal does not take as
// long as what it rehearses.
func (s *ScaledObject) Faster(by int) *ScaledObject {
	out := *s
	out.Up, out.Down = s.Up.faster(by), s.Down.faster(by)
	return &out
}

// Smaller returns the same with a target that is divided, for workers whose batches are.
func (s *ScaledObject) Smaller(by int) *ScaledObject {
	out := *s
	out.Target /= float64(by)
	return &out
}

func (r Rules) faster(by int) Rules {
	out := Rules{Window: r.Window / time.Duration(by)}
	for _, p := range r.Policies {
		p.Period /= time.Duration(by)
		out.Policies = append(out.Policies, p)
	}
	return out
}
