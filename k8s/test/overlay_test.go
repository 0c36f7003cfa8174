// Package manifests checks k8s/ and the Dockerfiles without a cluster and without a
// container daemon: each overlay is rendered as kubectl does it, each object is read
// strictly into its API type, and what one object says about another one or about the
// binaries is compared with those. It never says that a cluster accepts the objects.
package manifests

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// namespace is where all objects are.
const namespace = "wirepost"

// nameLabel tells what a pod is.
const nameLabel = "app.kubernetes.io/name"

// overlay is what one of the overlays sends to a cluster.
type overlay struct {
	name    string // of its folder
	gateway string // the namespace of the gateway's proxies
	objects []metav1.Object
	pods    []workload
}

// production reports whether the overlay is for users.
func (o *overlay) production() bool { return o.name == "production" }

// workload is a Deployment or a StatefulSet, of which only the parts that they share
// count here.
type workload struct {
	metav1.Object
	kind     string
	replicas *int32
	selector *metav1.LabelSelector
	template corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
}

func (w workload) spec() corev1.PodSpec { return w.template.Spec }

// container is the workload's own: it has no others.
func (w workload) container() corev1.Container { return w.template.Spec.Containers[0] }

// workload returns the one of this name.
func (o *overlay) workload(name string) (workload, bool) {
	for _, w := range o.pods {
		if w.GetName() == name {
			return w, true
		}
	}
	return workload{}, false
}

// all returns the objects of one type.
func all[T metav1.Object](o *overlay) []T {
	var found []T
	for _, obj := range o.objects {
		if t, ok := obj.(T); ok {
			found = append(found, t)
		}
	}
	return found
}

// named returns the object of a type and a name.
func named[T metav1.Object](o *overlay, name string) (T, bool) {
	for _, obj := range all[T](o) {
		if obj.GetName() == name {
			return obj, true
		}
	}
	var none T
	return none, false
}

// render returns the YAML of an overlay, as kubectl kustomize does.
func render(folder string) ([]byte, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

// rendered renders each overlay once.
var rendered = func() map[string]func() ([]byte, error) {
	m := map[string]func() ([]byte, error){}
	for _, name := range []string{"dev", "production"} {
		m[name] = sync.OnceValues(func() ([]byte, error) { return render("../overlays/" + name) })
	}
	return m
}()

// strict reads YAML into API types, and fails at a field that a type does not have and at
// one that is there twice.
var strict = sync.OnceValue(func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, policyv1.AddToScheme,
		networkingv1.AddToScheme, gatewayv1.Install, keda.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
})

// decode reads the objects of an overlay.
func decode(name string, text []byte) (*overlay, error) {
	o := &overlay{name: name, gateway: "gateway"}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		decoded, _, err := strict().Decode(doc, nil, nil)
		if err != nil {
			head, _, _ := strings.Cut(string(doc), "spec:")
			return nil, fmt.Errorf("%w in\n%s", err, head)
		}
		obj := decoded.(metav1.Object)
		o.objects = append(o.objects, obj)
		switch x := obj.(type) {
		case *appsv1.Deployment:
			o.pods = append(o.pods, workload{Object: x, kind: "Deployment", replicas: x.Spec.Replicas, selector: x.Spec.Selector, template: x.Spec.Template})
		case *appsv1.StatefulSet:
			o.pods = append(o.pods, workload{Object: x, kind: "StatefulSet", replicas: x.Spec.Replicas, selector: x.Spec.Selector,
				template: x.Spec.Template, claims: x.Spec.VolumeClaimTemplates})
		}
	}
	for _, w := range o.pods {
		if n := len(w.spec().Containers) + len(w.spec().InitContainers); n != 1 {
			return nil, fmt.Errorf("%s has %d containers: the checks know of one", w.GetName(), n)
		}
	}
	return o, nil
}

// load renders and decodes an overlay.
func load(t *testing.T, name string) *overlay {
	t.Helper()
	text, err := rendered[name]()
	if err != nil {
		t.Fatal(err)
	}
	o, err := decode(name, text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// problems are what a check finds; none is what it wants.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// checks are all that is asked of an overlay. Each is seen to fail by TestBroken.
var checks = map[string]func(*testing.T, *overlay) problems{
	"objects":     checkObjects,
	"selectors":   checkSelectors,
	"services":    checkServices,
	"route":       checkRoute,
	"environment": checkEnvironment,
	"layout":      checkLayout,
	"ports":       checkPorts,
	"volumes":     checkVolumes,
	"probes":      checkProbes,
	"grace":       checkGrace,
	"memory":      checkMemory,
	"security":    checkSecurity,
	"disruption":  checkDisruption,
	"network":     checkNetwork,
	"images":      checkImages,
	"nats":        checkNATS,
	"workers":     checkWorkerScaling,
	"edges":       checkEdgeScaling,
}

func TestShipped(t *testing.T) {
	for _, name := range []string{"dev", "production"} {
		o := load(t, name)
		for check, find := range checks {
			t.Run(name+"/"+check, func(t *testing.T) {
				for _, problem := range find(t, o) {
					t.Error(problem)
				}
			})
		}
	}
}
