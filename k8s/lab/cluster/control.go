// Package cluster is a real Kubernetes control plane on loopback: etcd, the API server, the
// controllers and the scheduler as they are shipped, fake nodes by kwok, and KEDA. It
// runs no container: of a pod it knows what kwok says, which is that it runs.
package cluster

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/wirepost/wirepost/k8s/lab/binaries"
	"github.com/wirepost/wirepost/k8s/lab/box"
	"github.com/wirepost/wirepost/k8s/lab/pki"
	"github.com/wirepost/wirepost/k8s/lab/process"
)

const (
	server  = "https://127.0.0.1:6443"
	etcdURL = "http://127.0.0.1:2379"
	// started is how long a program may take until it answers.
	started = time.Minute
)

// Options say how a control plane starts.
type Options struct {
	Programs string // the folder of the binaries
	Dir      string // for everything that it writes
	Sources  binaries.Sources
	// HPASync is the time between two looks of the HPA controller.
	HPASync time.Duration
}

// Cluster is a control plane that runs.
type Cluster struct {
	*Client
	o     Options
	group *process.Group
	ca    *pki.Authority
}

// Start starts etcd, the API server, the controllers, the scheduler and three fake nodes.
func Start(ctx context.Context, group *process.Group, o Options) (*Cluster, error) {
	c := &Cluster{o: o, group: group}
	if err := os.MkdirAll(c.pki(), 0o700); err != nil {
		return nil, err
	}
	if err := c.certificates(); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if err := c.run("etcd", "--data-dir="+filepath.Join(o.Dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380"); err != nil {
		return nil, err
	}
	if err := process.Await(ctx, "etcd", started, answers(http.DefaultClient, etcdURL+"/health")); err != nil {
		return nil, err
	}
	if err := c.startServer(ctx); err != nil {
		return nil, err
	}
	if err := c.startControllers(); err != nil {
		return nil, err
	}
	return c, c.startNodes(ctx)
}

func (c *Cluster) pki() string                 { return filepath.Join(c.o.Dir, "pki") }
func (c *Cluster) file(name string) string     { return filepath.Join(c.pki(), name) }
func (c *Cluster) kubeconfig(of string) string { return c.file(of + ".kubeconfig") }

func (c *Cluster) run(program string, args ...string) error {
	_, err := c.group.Start(program, exec.Command(filepath.Join(c.o.Programs, program), args...))
	return err
}

// certificates makes those of the control plane, and a kubeconfig for each of its clients.
func (c *Cluster) certificates() (err error) {
	if c.ca, err = pki.NewAuthority(c.pki(), "ca"); err != nil {
		return err
	}
	front, err := pki.NewAuthority(c.pki(), "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := front.Issue(c.pki(), "front-proxy", pkix.Name{CommonName: "front-proxy-client"}); err != nil {
		return err
	}
	if err := c.ca.Issue(c.pki(), "apiserver", pkix.Name{CommonName: "kube-apiserver"}, "127.0.0.1", "localhost", "kubernetes.default.svc"); err != nil {
		return err
	}
	for name, subject := range map[string]pkix.Name{
		"admin":                   {CommonName: "admin", Organization: []string{"system:masters"}},
		"kwok":                    {CommonName: "kwok", Organization: []string{"system:masters"}},
		"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
		"kube-scheduler":          {CommonName: "system:kube-scheduler"},
	} {
		if err := c.ca.Issue(c.pki(), name, subject); err != nil {
			return err
		}
		user := api.AuthInfo{ClientCertificate: c.file(name + ".crt"), ClientKey: c.file(name + ".key")}
		if err := c.writeKubeconfig(name, user); err != nil {
			return err
		}
	}
	return pki.KeyPair(c.pki(), "service-accounts")
}

func (c *Cluster) writeKubeconfig(name string, user api.AuthInfo) error {
	config := api.NewConfig()
	config.Clusters["lab"] = &api.Cluster{Server: server, CertificateAuthority: c.file("ca.crt")}
	config.AuthInfos[name] = &user
	config.Contexts["lab"] = &api.Context{Cluster: "lab", AuthInfo: name}
	config.CurrentContext = "lab"
	return clientcmd.WriteToFile(*config, c.kubeconfig(name))
}

func (c *Cluster) startServer(ctx context.Context) error {
	if err := c.run("kube-apiserver", "--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1", "--secure-port=6443", "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", // it would write 127.0.0.1 down as its endpoint, and refuse it
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
		"--tls-cert-file="+c.file("apiserver.crt"), "--tls-private-key-file="+c.file("apiserver.key"), "--client-ca-file="+c.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.file("service-accounts.pub"), "--service-account-signing-key-file="+c.file("service-accounts.key"),
		"--requestheader-client-ca-file="+c.file("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+c.file("front-proxy.crt"), "--proxy-client-key-file="+c.file("front-proxy.key")); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig("admin"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no bound of the client's own: an error is always the server's answer
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if err := process.Await(ctx, "the API server", started, answers(transport, server+"/readyz")); err != nil {
		return err
	}
	c.Client, err = newClient(config, transport)
	return err
}

func (c *Cluster) startControllers() error {
	if err := c.run("kube-controller-manager", "--kubeconfig="+c.kubeconfig("kube-controller-manager"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials", "--service-account-private-key-file="+c.file("service-accounts.key"), "--root-ca-file="+c.file("ca.crt"),
		"--horizontal-pod-autoscaler-sync-period="+c.o.HPASync.String()); err != nil {
		return err
	}
	return c.run("kube-scheduler", "--kubeconfig="+c.kubeconfig("kube-scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false")
}

// startNodes starts three nodes in three zones, because NATS wants a node for each server.
func (c *Cluster) startNodes(ctx context.Context) error {
	stages, err := Render(filepath.Join(c.o.Sources.Kwok, "kustomize/stage/fast"))
	if err != nil {
		return fmt.Errorf("kwok's stages: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.o.Dir, "stages.yaml"), stages, 0o644); err != nil {
		return err
	}
	for i := range 3 {
		if err := c.ApplyYAML(ctx, fmt.Appendf(nil, `apiVersion: v1
kind: Node
metadata:
  name: fake-%[1]d
  labels: {kubernetes.io/hostname: fake-%[1]d, kubernetes.io/os: linux, topology.kubernetes.io/zone: zone-%[1]d}
`, i)); err != nil {
			return err
		}
	}
	return c.run("kwok", "--kubeconfig="+c.kubeconfig("kwok"), "--manage-all-nodes=true", "--node-ip=127.0.0.1", "--cidr="+box.PodRange,
		"--node-lease-duration-seconds=40", "--server-address=127.0.0.1:10247", "--config="+filepath.Join(c.o.Dir, "stages.yaml"))
}

// answers asks a URL until it says 200.
func answers(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, resp.Status)
		}
		return nil
	}
}
