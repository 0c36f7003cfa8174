package manifests

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/wirepost/wirepost/edge"
	"github.com/wirepost/wirepost/worker"
)

// ofGo are variables that Go's runtime reads.
var ofGo = []string{"GOMEMLIMIT", "GOMAXPROCS"}

// sample is what a key of a Secret of production may hold.
func sample(t *testing.T, secret, key string) string {
	switch secret + "/" + key {
	case "edge-token/public.pem":
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	case "worker-mongodb/uri":
		return "mongodb://user:password@mongo-0.mongo.mongodb.svc:27017/?replicaSet=rs0&tls=true"
	}
	return "anything"
}

// environment returns what the container's process finds in its environment. Files of
// Secrets exist, below a folder of the test; their names are replaced by those.
func environment(t *testing.T, o *overlay, w workload) (environ map[string]string, p problems) {
	environ = map[string]string{}
	for _, from := range w.container().EnvFrom {
		c, ok := named[*corev1.ConfigMap](o, from.ConfigMapRef.Name)
		if !ok {
			p.add("%s takes its environment from the ConfigMap %s, which is not there", w.GetName(), from.ConfigMapRef.Name)
			continue
		}
		maps.Copy(environ, c.Data)
	}
	own := map[string]bool{}
	for _, e := range w.container().Env {
		if own[e.Name] {
			p.add("%s sets %s twice", w.GetName(), e.Name)
		}
		own[e.Name] = true
		value, err := valueOf(t, o, e)
		if err != nil {
			p.add("%s: %s: %v", w.GetName(), e.Name, err)
		}
		environ[e.Name] = value
	}
	dir := t.TempDir()
	for name, value := range environ {
		s, ok := fileAt(w, value)
		if !ok || !strings.HasPrefix(value, "/") {
			continue
		}
		keys, _ := keysOf(o, s.kind, s.name)
		if !slices.Contains(keys, s.key) {
			p.add("%s: %s is %s, and %s has no key %q", w.GetName(), name, value, s.name, s.key)
			continue
		}
		environ[name] = filepath.Join(dir, s.name+"_"+s.key)
		if err := os.WriteFile(environ[name], []byte(sample(t, s.name, s.key)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return environ, p
}

// valueOf returns the value that the kubelet gives a variable.
func valueOf(t *testing.T, o *overlay, e corev1.EnvVar) (string, error) {
	switch from := e.ValueFrom; {
	case from == nil:
		return e.Value, nil
	case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name":
		return "some-pod-0", nil
	case from.ResourceFieldRef != nil && from.ResourceFieldRef.Resource == "requests.cpu":
		return "2", nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		if s, ok := named[*corev1.Secret](o, ref.Name); ok {
			if value, ok := s.Data[ref.Key]; ok {
				return string(value), nil
			}
		} else if keys, _ := keysOf(o, "Secret", ref.Name); slices.Contains(keys, ref.Key) {
			return sample(t, ref.Name, ref.Key), nil
		}
		return "", fmt.Errorf("there is no Secret %s with a key %s", ref.Name, ref.Key)
	}
	return "", fmt.Errorf("its source is one that this test does not know")
}

// variables are those that a configuration reads.
func variables(config reflect.Type) (names []string) {
	for i := range config.NumField() {
		f := config.Field(i)
		if f.Type.Kind() == reflect.Struct {
			names = append(names, variables(f.Type)...)
		}
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// edgeConfig returns the edge's environment in an overlay, and what the edge makes of it.
func edgeConfig(t *testing.T, o *overlay) (problems, edge.Config) {
	environ, p := checkedEnvironment(t, o, "edge", reflect.TypeFor[edge.Config]())
	cfg, err := edge.LoadConfig(environ)
	if err != nil {
		p.add("the edge does not start: %v", err)
	}
	return p, cfg
}

// workerConfig is the same of the worker.
func workerConfig(t *testing.T, o *overlay) (problems, worker.Config) {
	environ, p := checkedEnvironment(t, o, "worker", reflect.TypeFor[worker.Config]())
	cfg, err := worker.LoadConfig(environ)
	if err != nil {
		p.add("the worker does not start: %v", err)
	}
	return p, cfg
}

func checkedEnvironment(t *testing.T, o *overlay, name string, config reflect.Type) (map[string]string, problems) {
	w, ok := o.workload(name)
	if !ok {
		return map[string]string{}, problems{"there is no " + name}
	}
	environ, p := environment(t, o, w)
	known := append(variables(config), ofGo...)
	for variable := range environ {
		if !slices.Contains(known, variable) {
			p.add("%s does not know the variable %s", name, variable)
		}
	}
	return environ, p
}

// checkEnvironment: the binaries start with the environment that they are given, know
// each variable of it, and find NATS and the store behind the names in it.
func checkEnvironment(t *testing.T, o *overlay) (p problems) {
	found, e := edgeConfig(t, o)
	p = append(p, found...)
	found, w := workerConfig(t, o)
	p = append(p, found...)
	for name, urls := range map[string]string{"edge": e.NATS.URL.Reveal(), "worker": w.NATS.URL.Reveal()} {
		for one := range strings.SplitSeq(urls, ",") {
			u, err := url.Parse(one)
			if err != nil || !resolves(o, u.Hostname(), u.Port()) {
				p.add("NATS_URL of %s: there is no %s", name, one)
			}
			if o.production() && (err != nil || u.Scheme != "tls") {
				p.add("NATS_URL of %s: %s does not insist on TLS", name, one)
			}
		}
	}
	if uri, err := url.Parse(w.Store.URI.Reveal()); !o.production() && (err != nil || !resolves(o, uri.Hostname(), uri.Port())) {
		p.add("MONGODB_URI: there is no %s", uri.Host)
	}
	if o.production() && (e.NATS.NKeyFile == "" || e.NATS.ReplayNKeyFile == "" || e.NATS.CAFile == "" || w.NATS.NKeyFile == "" || w.NATS.CAFile == "") {
		p.add("edge or worker has no key or no authority for NATS")
	}
	if o.production() && len(e.Proxies.Trusted) == 0 {
		p.add("the edge believes no gateway who the client is")
	}
	for _, trusted := range e.Proxies.Trusted {
		network, err := netip.ParsePrefix(trusted)
		if err == nil && o.production() && network.Addr().BitLen()-network.Bits() > 8 {
			p.add("the edge believes %s, in which there are others than the gateway", trusted)
		}
	}
	if pod, ok := o.workload("worker"); ok && !slices.ContainsFunc(pod.container().Env, func(v corev1.EnvVar) bool {
		return v.Name == "WORKER_NAME" && v.ValueFrom != nil && v.ValueFrom.FieldRef != nil
	}) {
		p.add("WORKER_NAME is not the pod's name")
	}
	if pod, ok := o.workload("edge"); ok && slices.ContainsFunc(pod.container().Env, func(v corev1.EnvVar) bool { return v.Name == "EDGE_NAME" }) {
		p.add("EDGE_NAME is set: an edge that starts again would have the name of the one before")
	}
	return p
}

// checkLayout: edges, workers and NATS agree on how many lanes, shards and servers there
// are.
func checkLayout(t *testing.T, o *overlay) (p problems) {
	_, e := edgeConfig(t, o)
	_, w := workerConfig(t, o)
	if e.Layout.Lanes != w.Layout.Lanes || e.Layout.Shards != w.Layout.Shards {
		p.add("the edge has %d lanes and %d shards, the worker %d and %d", e.Layout.Lanes, e.Layout.Shards, w.Layout.Lanes, w.Layout.Shards)
	}
	for _, name := range []string{"edge", "worker"} {
		pod, _ := o.workload(name)
		if len(pod.container().EnvFrom) != 1 {
			p.add("%s does not take the layout from its ConfigMap", name)
		}
	}
	if nats, ok := o.workload("nats"); !ok || nats.replicas == nil || int(*nats.replicas) != w.Layout.Replicas {
		p.add("streams have %d replicas, and there are not as many servers", w.Layout.Replicas)
	}
	return p
}
