package rehearsal

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wirepost/wirepost/k8s/lab/cluster"
)

// sizes are the numbers of replicas that a Deployment was given, as the API server told of
// each change: looking once a second would miss some.
type sizes struct {
	mu  sync.Mutex
	all steps
}

// steps are changes of a size, in order.
type steps []step

type step struct {
	at time.Time
	n  int
}

func (s *sizes) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 || s.all[len(s.all)-1].n != n {
		s.all = append(s.all, step{time.Now(), n})
	}
}

// since returns the changes after a time.
func (s *sizes) since(t time.Time) (later steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if one.at.After(t) {
			later = append(later, one)
		}
	}
	return later
}

// oneByOne reports whether they go from a number down to another in steps of one.
func (s steps) oneByOne(from, to int) bool {
	for _, one := range s {
		if from--; one.n != from {
			return false
		}
	}
	return from == to
}

// String is such as "7, 6, 5".
func (s steps) String() string {
	sizes := make([]string, len(s))
	for i, one := range s {
		sizes[i] = fmt.Sprint(one.n)
	}
	return strings.Join(sizes, ", ")
}

// watchSizes notes the sizes of the Deployments from now on.
func (r *run) watchSizes(ctx context.Context) error {
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	return cluster.Watch(ctx, r.cluster.Client, deployments, namespace, func(d *appsv1.Deployment) {
		if of := r.sizes[d.Name]; of != nil && d.Spec.Replicas != nil {
			of.add(int(*d.Spec.Replicas))
		}
	}, func(*appsv1.Deployment) {})
}
