package cluster

import (
	"encoding/base64"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wirepost/wirepost/k8s/lab/pki"
)

// TestObjects: each document, in order, and none that is empty.
func TestObjects(t *testing.T) {
	objects, err := Objects([]byte("---\nkind: A\n---\n# nothing\n---\nkind: B\n"))
	if err != nil || len(objects) != 2 || objects[0].GetKind() != "A" || objects[1].GetKind() != "B" {
		t.Errorf("%v, %v", objects, err)
	}
	if _, err := Objects([]byte("kind: [A\n")); err == nil {
		t.Error("a text that is no YAML is read")
	}
}

// TestReach: KEDA's registrations lead to our ports under our authority, and a webhook that
// cannot be asked lets nothing in.
func TestReach(t *testing.T) {
	ca, err := pki.NewAuthority(t.TempDir(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	c, bundle := &Cluster{ca: ca}, base64.StdEncoding.EncodeToString(ca.PEM)
	objects, err := Objects([]byte(`
kind: APIService
spec: {service: {name: keda-metrics-apiserver, namespace: keda}}
---
kind: ValidatingWebhookConfiguration
webhooks: [{name: a, failurePolicy: Ignore, clientConfig: {service: {path: /a}}}, {name: b, clientConfig: {service: {path: /b}}}]
---
kind: ClusterRole
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range objects {
		if err := c.reach(u); err != nil {
			t.Fatal(err)
		}
	}
	service := objects[0].Object
	if port, _, _ := unstructured.NestedInt64(service, "spec", "service", "port"); port != adapterPort {
		t.Errorf("port %d", port)
	}
	if got, _, _ := unstructured.NestedString(service, "spec", "caBundle"); got != bundle {
		t.Errorf("authority %.20s", got)
	}
	hooks, _, _ := unstructured.NestedSlice(objects[1].Object, "webhooks")
	for i, path := range []string{"/a", "/b"} {
		hook := hooks[i].(map[string]any)
		port, _, _ := unstructured.NestedInt64(hook, "clientConfig", "service", "port")
		got, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
		kept, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "path")
		if port != webhooksPort || got != bundle || kept != path || hook["failurePolicy"] != "Fail" {
			t.Errorf("%v", hook)
		}
	}
	if len(objects[2].Object) != 1 {
		t.Errorf("%v is changed", objects[2].Object)
	}
}

// TestServices: what leads to KEDA's programs are objects.
func TestServices(t *testing.T) {
	objects, err := Objects([]byte(strings.ReplaceAll(services, "%d", "1")))
	if err != nil || len(objects) != 2 {
		t.Errorf("%v, %v", objects, err)
	}
}
