// Package pods does what a kubelet does for the pods of wirepost: it runs their programs. The
// fake nodes only say that a pod runs; here the real edge, worker or nats-server starts for
// each, with the environment, the files and the arguments that the pod has in the cluster, in a
// root folder that has nothing else, and ends when the pod is deleted.
//
// It isolates nothing: all of them share one network, and run as the user of the rehearsal.
package pods

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wirepost/wirepost/k8s/lab/cluster"
	"github.com/wirepost/wirepost/k8s/lab/process"
)

// namespace is where the pods are.
const namespace = "wirepost"

// own are the arguments with which a program takes the pod's address, where its environment
// does not say it.
var own = map[string]func(ip string) []string{
	"nats": func(ip string) []string { return []string{"--addr", ip, "--cluster", "nats://" + ip + ":6222"} },
}

// Runner runs pods.
type Runner struct {
	names  *Names
	client *cluster.Client
	group  *process.Group
	fail   context.CancelCauseFunc
	dir    string // for the pods' roots, and below programs/ for what they run

	mu    sync.Mutex
	pods  map[string]*running        // by name
	ended map[string]<-chan struct{} // by address and program: when the last one there is gone
}

type running struct {
	process *process.Process
	kind    string // the container's name
	ip      string
}

// Start runs the pods of the namespace from now on, until ctx ends; the group ends them.
// programs are the binaries by container. fail is called when a pod cannot be run.
func Start(ctx context.Context, client *cluster.Client, group *process.Group, dir string, programs map[string]string, names *Names, fail context.CancelCauseFunc) (*Runner, error) {
	r := &Runner{names: names, client: client, group: group, fail: fail, dir: dir,
		pods: map[string]*running{}, ended: map[string]<-chan struct{}{}}
	for name, path := range programs {
		if err := copyFile(path, filepath.Join(dir, "programs", name)); err != nil {
			return nil, err
		}
	}
	slices := schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	set := func(s *discoveryv1.EndpointSlice) {
		if err := names.Set(s); err != nil {
			fail(err)
		}
	}
	if err := cluster.Watch(ctx, client, slices, "", set, func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil; set(s) }); err != nil {
		return nil, err
	}
	return r, cluster.Watch(ctx, client, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, namespace,
		func(p *corev1.Pod) { r.changed(ctx, p) }, func(p *corev1.Pod) { r.gone(p) })
}

// Running returns how many programs of a kind run.
func (r *Runner) Running(kind string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		if p.kind == kind {
			n++
		}
	}
	return n
}

func (r *Runner) changed(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		r.gone(pod)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[pod.Name] != nil || pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
		return
	}
	p := &running{kind: pod.Spec.Containers[0].Name, ip: pod.Status.PodIP}
	r.pods[pod.Name] = p
	before := r.ended[p.place()]
	go func() {
		if before != nil {
			<-before // who had the address before
		}
		if err := r.start(ctx, pod, p); err != nil && ctx.Err() == nil {
			r.fail(fmt.Errorf("run pod %s: %w", pod.Name, err))
		}
	}()
}

func (p *running) place() string { return p.kind + " " + p.ip }

// start runs the program of a pod.
func (r *Runner) start(ctx context.Context, pod *corev1.Pod, p *running) error {
	c, root := pod.Spec.Containers[0], filepath.Join(r.dir, pod.Name)
	program := c.Name
	if len(c.Command) > 0 {
		program = c.Command[0]
	}
	for _, dir := range []string{"etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{r.names.file.Name(): "etc/hosts", filepath.Join(r.dir, "programs", c.Name): program} {
		if err := os.Link(from, filepath.Join(root, to)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	read := r.source(ctx)
	if err := mount(root, pod, c, read); err != nil {
		return err
	}
	environ, err := environment(pod, c, read)
	if err != nil {
		return err
	}
	args := c.Args
	if len(c.Command) > 0 {
		args = append(c.Command[1:], args...)
	}
	if addresses := own[c.Name]; addresses != nil {
		args = append(args, addresses(pod.Status.PodIP)...)
	}
	cmd := exec.Command("/"+program, args...)
	cmd.Env, cmd.Dir = environ, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[pod.Name] != p {
		return nil // deleted meanwhile
	}
	p.process, err = r.group.Start(pod.Name, cmd)
	return err
}

// gone ends the program of a pod that is deleted, within its grace period.
func (r *Runner) gone(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[pod.Name]
	delete(r.pods, pod.Name)
	if p == nil || p.process == nil {
		return
	}
	r.ended[p.place()] = p.process.Ended()
	grace := 30 * time.Second
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	go p.process.Stop(grace)
}

// source reads ConfigMaps and Secrets from the API server.
func (r *Runner) source(ctx context.Context) source {
	return func(kind, name string) (map[string][]byte, bool, error) {
		var c corev1.ConfigMap
		var s corev1.Secret
		into := any(&s)
		if kind == "ConfigMap" {
			into = &c
		}
		err := r.client.Get(ctx, corev1.SchemeGroupVersion.WithKind(kind), namespace, name, into)
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		data := s.Data
		if kind == "ConfigMap" {
			data = map[string][]byte{}
			for key, value := range c.Data {
				data[key] = []byte(value)
			}
		}
		return data, err == nil, err
	}
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
