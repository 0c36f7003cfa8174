package cluster

import (
	"context"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/wirepost/wirepost/k8s/lab/process"
)

// Ports of KEDA's three programs, which share an address here.
const (
	adapterPort  = 16443 // 6443 is the API server's
	webhooksPort = 9443
	operatorGRPC = "127.0.0.1:9666"
	operatorHTTP = "127.0.0.1:8081"
	webhooksHTTP = "127.0.0.1:8085"
)

// services lead from the names in KEDA's manifests to its programs. Kubernetes takes no
// endpoint in 127.0.0.0/8, but an external name.
const services = `apiVersion: v1
kind: Service
metadata: {name: keda-metrics-apiserver, namespace: keda}
spec: {type: ExternalName, externalName: localhost, ports: [{port: %d}]}
---
apiVersion: v1
kind: Service
metadata: {name: keda-admission-webhooks, namespace: keda}
spec: {type: ExternalName, externalName: localhost, ports: [{port: %d}]}
`

// StartKEDA installs KEDA as its manifests say, Deployments aside, and starts its programs
// with the rights that those would have.
func (c *Cluster) StartKEDA(ctx context.Context) error {
	if err := c.installKEDA(ctx); err != nil {
		return fmt.Errorf("install KEDA: %w", err)
	}
	token, err := c.token(ctx, "keda", "keda-operator")
	if err != nil {
		return err
	}
	if err := c.writeKubeconfig("keda", api.AuthInfo{Token: token}); err != nil {
		return err
	}
	certs := filepath.Join(c.o.Dir, "keda")
	if err := c.kedaCertificates(certs); err != nil {
		return err
	}
	kubeconfig := c.kubeconfig("keda")
	tls := []string{"--cert-dir=" + certs, "--tls-cert-file=" + filepath.Join(certs, "tls.crt"), "--tls-private-key-file=" + filepath.Join(certs, "tls.key")}
	for _, program := range []struct {
		name  string
		args  []string
		ready func(context.Context) error
	}{
		{"keda-operator", []string{"--cert-dir=" + certs, "--enable-cert-rotation=false", "--metrics-bind-address=127.0.0.1:8082",
			"--health-probe-bind-address=" + operatorHTTP, "--metrics-service-bind-address=" + operatorGRPC},
			both(answers(http.DefaultClient, "http://"+operatorHTTP+"/readyz"), listens(operatorGRPC))},
		{"keda-adapter", append(tls, fmt.Sprintf("--secure-port=%d", adapterPort), "--bind-address=127.0.0.1", "--client-ca-file="+filepath.Join(certs, "ca.crt"),
			"--lister-kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
			"--metrics-service-address="+operatorGRPC, "--port=8083"),
			c.apiServiceAvailable},
		{"keda-webhooks", []string{"--cert-dir=" + certs, fmt.Sprintf("--port=%d", webhooksPort), "--metrics-bind-address=127.0.0.1:8084", "--health-probe-bind-address=" + webhooksHTTP},
			both(answers(http.DefaultClient, "http://"+webhooksHTTP+"/readyz"), listens(fmt.Sprintf("127.0.0.1:%d", webhooksPort)))},
	} {
		cmd := exec.Command(filepath.Join(c.o.Programs, program.name), program.args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "WATCH_NAMESPACE=", "POD_NAMESPACE=keda", "KEDA_CLUSTER_OBJECT_NAMESPACE=keda")
		if _, err := c.group.Start(program.name, cmd); err != nil {
			return err
		}
		if err := process.Await(ctx, program.name, started, program.ready); err != nil {
			return err
		}
	}
	return nil
}

// installKEDA applies kinds, rights and registrations out of KEDA's module.
func (c *Cluster) installKEDA(ctx context.Context) error {
	config := filepath.Join(c.o.Sources.KEDA, "config")
	for _, folder := range []string{"crd", "general", "service_account", "rbac"} {
		text, err := Render(filepath.Join(config, folder))
		if err != nil {
			return err
		}
		if err := c.ApplyYAML(ctx, text); err != nil {
			return err
		}
	}
	if err := c.ApplyYAML(ctx, fmt.Appendf(nil, services, adapterPort, webhooksPort)); err != nil {
		return err
	}
	for _, file := range []string{"metrics-server/role.yaml", "metrics-server/role_binding.yaml", "metrics-server/api_service.yaml", "webhooks/validation_webhooks.yaml"} {
		text, err := os.ReadFile(filepath.Join(config, file))
		if err != nil {
			return err
		}
		objects, err := Objects(text)
		if err != nil {
			return err
		}
		for _, u := range objects {
			if err := c.reach(u); err != nil {
				return err
			}
			if err := c.Apply(ctx, u, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// reach puts our ports and authority into KEDA's registrations, which in a cluster its operator
// does, and makes a webhook that cannot be asked a refusal.
func (c *Cluster) reach(u *unstructured.Unstructured) error {
	bundle := base64.StdEncoding.EncodeToString(c.ca.PEM)
	switch u.GetKind() {
	case "APIService":
		return errors.Join(unstructured.SetNestedField(u.Object, bundle, "spec", "caBundle"),
			unstructured.SetNestedField(u.Object, int64(adapterPort), "spec", "service", "port"))
	case "ValidatingWebhookConfiguration":
		hooks, _, err := unstructured.NestedSlice(u.Object, "webhooks")
		if err != nil {
			return err
		}
		for _, hook := range hooks {
			h := hook.(map[string]any)
			h["failurePolicy"] = "Fail"
			err = errors.Join(err, unstructured.SetNestedField(h, bundle, "clientConfig", "caBundle"),
				unstructured.SetNestedField(h, int64(webhooksPort), "clientConfig", "service", "port"))
		}
		return errors.Join(err, unstructured.SetNestedSlice(u.Object, hooks, "webhooks"))
	}
	return nil
}

func (c *Cluster) kedaCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), c.ca.PEM, 0o644); err != nil {
		return err
	}
	return c.ca.Issue(dir, "tls", pkix.Name{CommonName: "KEDA", Organization: []string{"KEDAORG"}}, "127.0.0.1", "localhost",
		"keda-operator.keda.svc", "keda-metrics-apiserver.keda.svc", "keda-admission-webhooks.keda.svc")
}

// apiServiceAvailable: the API server reaches KEDA's adapter.
func (c *Cluster) apiServiceAvailable(ctx context.Context) error {
	var service struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	kind := schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"}
	if err := c.Get(ctx, kind, "", "v1beta1.external.metrics.k8s.io", &service); err != nil {
		return err
	}
	for _, condition := range service.Status.Conditions {
		if condition.Type == "Available" && condition.Status == metav1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the API for external metrics is not available: %v", service.Status.Conditions)
}

func listens(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

func both(a, b func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return errors.Join(a(ctx), b(ctx)) }
}
