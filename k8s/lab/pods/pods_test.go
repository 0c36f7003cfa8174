package pods

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// objects is a source of fixed data, by kind and name.
func objects(all map[string]map[string]string) source {
	return func(kind, name string) (map[string][]byte, bool, error) {
		values, found := all[kind+"/"+name]
		data := map[string][]byte{}
		for key, value := range values {
			data[key] = []byte(value)
		}
		return data, found, nil
	}
}

func pod(c corev1.Container, volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod-0"}, Status: corev1.PodStatus{PodIP: "10.244.0.7"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{c}, Volumes: volumes}}
}

// TestEnvironment: each source of a value that the overlays use, and no other.
func TestEnvironment(t *testing.T) {
	secret := func(name, key string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key}}
	}
	c := corev1.Container{
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "layout"}}}},
		Env: []corev1.EnvVar{
			{Name: "LANES", Value: "9"},
			{Name: "LISTEN", Value: ":8080"},
			{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "CPUS", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "requests.cpu"}}},
			{Name: "URI", ValueFrom: secret("store", "uri")},
		},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}},
	}
	read := objects(map[string]map[string]string{"ConfigMap/layout": {"LANES": "8", "SHARDS": "4"}, "Secret/store": {"uri": "mongodb://x"}})
	got, err := environment(pod(c), c, read)
	want := []string{"CPUS=2", "HOSTNAME=pod-0", "LANES=9", "LISTEN=10.244.0.7:8080", "NAME=pod-0", "SHARDS=4", "URI=mongodb://x"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for name, from := range map[string]*corev1.EnvVarSource{
		"another secret": secret("other", "uri"),
		"another key":    secret("store", "url"),
		"another field":  {FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}},
		"another amount": {ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}},
	} {
		c := corev1.Container{Env: []corev1.EnvVar{{Name: "X", ValueFrom: from}}}
		if got, err := environment(pod(c), c, read); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestMount: volumes become files, a subPath one of them; what must be there must be.
func TestMount(t *testing.T) {
	yes := true
	volumes := []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nats"}}}},
		{Name: "keys", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}},
		{Name: "maybe", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent", Optional: &yes}}},
		{Name: "needed", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent"}}},
		{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}},
	}
	read := objects(map[string]map[string]string{"ConfigMap/nats": {"nats.conf": "port: 4222", "other": "no"}, "Secret/keys": {"a": "1", "b": "2"}})
	c := corev1.Container{VolumeMounts: []corev1.VolumeMount{
		{Name: "config", MountPath: "/etc/nats/nats.conf", SubPath: "nats.conf"},
		{Name: "keys", MountPath: "/etc/nats/keys"},
		{Name: "maybe", MountPath: "/etc/maybe"},
		{Name: "run", MountPath: "/var/run/nats"},
	}}
	root := t.TempDir()
	if err := mount(root, pod(c, volumes...), c, read); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err == nil && !d.IsDir() {
			text, _ := os.ReadFile(path)
			got = append(got, rel+"="+string(text))
		}
		return err
	})
	if want := []string{"etc/nats/keys/a=1", "etc/nats/keys/b=2", "etc/nats/nats.conf=port: 4222"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if info, err := os.Stat(filepath.Join(root, "var/run/nats")); err != nil || !info.IsDir() {
		t.Error(err)
	}
	for _, m := range []corev1.VolumeMount{
		{Name: "needed", MountPath: "/x"}, {Name: "host", MountPath: "/x"}, {Name: "unknown", MountPath: "/x"}, {Name: "config", MountPath: "/x", SubPath: "absent"},
	} {
		c := corev1.Container{VolumeMounts: []corev1.VolumeMount{m}}
		if err := mount(t.TempDir(), pod(c, volumes...), c, read); err == nil {
			t.Errorf("%s is mounted", m.Name)
		}
	}
}

// TestNames: what a cluster's DNS server says of headless Services, and which of their
// endpoints are ready.
func TestNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	n, err := NewNames(path)
	if err != nil {
		t.Fatal(err)
	}
	no, zero := false, "nats-0"
	slice := func(name, service, namespace string, headless bool, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{discoveryv1.LabelServiceName: service}}, Endpoints: endpoints}
		if headless {
			s.Labels["service.kubernetes.io/headless"] = ""
		}
		return s
	}
	edges := slice("edge-x", "edge", "wirepost", false, discoveryv1.Endpoint{Addresses: []string{"10.244.0.2"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}})
	for _, s := range []*discoveryv1.EndpointSlice{
		slice("nats-headless-x", "nats-headless", "wirepost", true, discoveryv1.Endpoint{Addresses: []string{"10.244.0.1"}, Hostname: &zero}),
		slice("prometheus-x", "prometheus", "monitoring", true, discoveryv1.Endpoint{Addresses: []string{"10.244.255.1"}}),
		edges, edges, // twice: its lines are there once
	} {
		if err := n.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	want := `127.0.0.1 localhost
10.244.0.1 nats-headless.wirepost.svc nats-headless.wirepost.svc.cluster.local nats-headless
10.244.0.1 nats-0.nats-headless.wirepost.svc nats-0.nats-headless.wirepost.svc.cluster.local nats-0.nats-headless
10.244.255.1 prometheus.monitoring.svc prometheus.monitoring.svc.cluster.local
`
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if got := n.Ready("edge"); !slices.Equal(got, []string{"10.244.0.2"}) {
		t.Errorf("ready are %q", got)
	}
	edges.Endpoints = nil
	if err := n.Set(edges); err != nil || len(n.Ready("edge")) != 0 {
		t.Errorf("%v, ready are %q", err, n.Ready("edge"))
	}
}
