package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/wirepost/wirepost/k8s/lab/box"
	"github.com/wirepost/wirepost/k8s/lab/cluster"
	"github.com/wirepost/wirepost/k8s/lab/process"
)

const (
	mongoHost = "mongo-0.mongo.mongodb.svc"
	mongoURI  = "mongodb://" + mongoHost + ":27017/?replicaSet=rs0"
)

// around is what k8s/README.md says that a cluster has before: Prometheus and MongoDB under
// their names, and volumes.
const around = `
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: Service
metadata: {name: prometheus, namespace: monitoring}
spec: {clusterIP: None, ports: [{port: 9090}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: prometheus-lab, namespace: monitoring, labels: {kubernetes.io/service-name: prometheus, service.kubernetes.io/headless: ""}}
addressType: IPv4
ports: [{port: 9090}]
endpoints: [{addresses: [` + box.Prometheus + `]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: mongodb}
---
apiVersion: v1
kind: Service
metadata: {name: mongo, namespace: mongodb}
spec: {clusterIP: None, ports: [{port: 27017}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mongo-lab, namespace: mongodb, labels: {kubernetes.io/service-name: mongo, service.kubernetes.io/headless: ""}}
addressType: IPv4
ports: [{port: 27017}]
endpoints: [{addresses: [` + box.Mongo + `], hostname: mongo-0}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: lab, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
`

// volume is one that a fake node has.
const volume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-%[1]d}
spec:
  storageClassName: lab
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  local: {path: /nowhere}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [fake-%[1]d]}]}]}}
`

// surroundings starts MongoDB and Prometheus and tells the cluster of them.
func (r *run) surroundings(ctx context.Context) error {
	text := []byte(around)
	for i := range 3 {
		text = fmt.Appendf(text, "---\n"+volume, i)
	}
	if err := r.cluster.ApplyYAML(ctx, text); err != nil {
		return err
	}
	if err := r.startMongo(ctx); err != nil {
		return err
	}
	return r.startPrometheus(ctx)
}

// startMongo starts a mongod as a replica set of one, and returns when it takes writes.
func (r *run) startMongo(ctx context.Context) error {
	data := filepath.Join(r.o.Dir, "mongodb")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	var err error
	if r.mongod, err = r.group.Start("mongod", exec.Command(r.o.Mongod, "--replSet", "rs0", "--bind_ip", box.Mongo, "--port", "27017",
		"--dbpath", data, "--nounixsocket", "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5")); err != nil {
		return err
	}
	conn, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + box.Mongo + ":27017/?directConnection=true").SetServerSelectionTimeout(time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Disconnect(context.WithoutCancel(ctx)) }()
	admin := conn.Database("admin")
	initiate := bson.D{{Key: "replSetInitiate", Value: bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: bson.A{
		bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: mongoHost + ":27017"}}}}}}}
	return process.Await(ctx, "MongoDB", time.Minute, func(ctx context.Context) error {
		var hello struct{ IsWritablePrimary bool }
		if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil || hello.IsWritablePrimary {
			return err
		}
		return errors.Join(errors.New("it is no primary yet"), admin.RunCommand(ctx, initiate).Err())
	})
}

// freeze stops the store, as a primary whose disk hangs, until thaw.
func (r *run) freeze() error { return r.mongod.Signal(syscall.SIGSTOP) }

func (r *run) thaw() error { return r.mongod.Signal(syscall.SIGCONT) }

// scrape is the configuration of Prometheus. Debian's is built without the discovery of pods, so
// their list comes by a file, which targets writes: with the address, the path and the
// labels that k8s/README.md asks of your Prometheus.
const scrape = `global: {scrape_interval: 2s}
scrape_configs:
  - job_name: pods
    file_sd_configs: [{files: [targets.json]}]
`

func (r *run) startPrometheus(ctx context.Context) error {
	dir := filepath.Join(r.o.Dir, "prometheus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(scrape), 0o644); err != nil {
		return err
	}
	pods := &targets{file: filepath.Join(dir, "targets.json"), byPod: map[string]target{}}
	set := func(p *corev1.Pod) {
		if err := pods.set(p); err != nil {
			r.fail(err)
		}
	}
	if err := cluster.Watch(ctx, r.cluster.Client, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, namespace, set,
		func(p *corev1.Pod) { p.Status.PodIP = ""; set(p) }); err != nil {
		return err
	}
	address := net.JoinHostPort(box.Prometheus, "9090")
	if _, err := r.group.Start("prometheus", exec.Command(r.o.Prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)); err != nil {
		return err
	}
	return process.Await(ctx, "Prometheus", time.Minute, func(ctx context.Context) error {
		_, err := fetch(ctx, "http://"+address+"/-/ready")
		return err
	})
}

// targets are the pods that ask to be scraped, by their annotations.
type targets struct {
	file  string
	mu    sync.Mutex
	byPod map[string]target
}

// target is an entry of Prometheus' file_sd_config.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// set takes a pod as it is now; one without an address is gone.
func (t *targets) set(p *corev1.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byPod, p.Name)
	if p.Annotations["prometheus.io/scrape"] == "true" && p.Status.PodIP != "" && p.DeletionTimestamp == nil {
		t.byPod[p.Name] = target{[]string{net.JoinHostPort(p.Status.PodIP, p.Annotations["prometheus.io/port"])},
			map[string]string{"namespace": p.Namespace, "pod": p.Name, "__metrics_path__": p.Annotations["prometheus.io/path"]}}
	}
	list := []target{}
	for _, one := range t.byPod {
		list = append(list, one)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.file+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(t.file+".new", t.file)
}
