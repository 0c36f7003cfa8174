package manifests

import (
	"regexp"
	"strings"
	"testing"
)

// TestBroken breaks one thing after the other in what production renders, and sees that
// the check which is for it notices. "decode" is the strict reading itself.
func TestBroken(t *testing.T) {
	text, err := rendered["production"]()
	if err != nil {
		t.Fatal(err)
	}
	noticed := map[string]bool{}
	for _, b := range breaks {
		t.Run(b.check+"/"+b.is, func(t *testing.T) {
			o, err := decode("production", []byte(breakOne(t, string(text), b)))
			if b.check == "decode" {
				if err == nil {
					t.Fatal("it was read")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(checks[b.check](t, o)) == 0 {
				t.Fatal("nobody noticed")
			}
		})
		noticed[b.check] = true
	}
	for check := range checks {
		if !noticed[check] {
			t.Errorf("nothing is broken for the check %q", check)
		}
	}
}

// breakOne replaces the first b.old in the object b.in, such as Deployment/edge.
func breakOne(t *testing.T, text string, b broken) string {
	docs := strings.Split(text, "\n---\n")
	kind, name, _ := strings.Cut(b.in, "/")
	is := regexp.MustCompile(`(?m)^  name: ` + name + `(-[a-z0-9]{10})?$`)
	for i, doc := range docs {
		if !strings.Contains("\n"+doc, "\nkind: "+kind+"\n") || !is.MatchString(doc) {
			continue
		}
		if !strings.Contains(doc, b.old) {
			t.Fatalf("%s has no %q", b.in, b.old)
		}
		docs[i] = strings.Replace(doc, b.old, b.new, 1)
		return strings.Join(docs, "\n---\n")
	}
	t.Fatalf("there is no %s", b.in)
	return ""
}

// broken is one thing that is wrong: in the object in, old is new.
type broken struct{ check, is, in, old, new string }

var breaks = []broken{
	{"decode", "a misspelt field", "Deployment/edge", "minReadySeconds", "minReadySecond"},
	{"decode", "a field of KEDA misspelt", "ScaledObject/worker", "maxReplicaCount", "maxReplicas"},
	{"decode", "a field of the Gateway API misspelt", "HTTPRoute/edge", "backendRefs", "backends"},
	{"decode", "a number as text", "Service/edge", "port: 8080", "port: \"8080\""},
	{"objects", "another namespace", "Deployment/worker", "namespace: wirepost", "namespace: default"},
	{"objects", "a workload is missing", "Deployment/worker", "\n  name: worker\n  namespace", "\n  name: workers\n  namespace"},
	{"selectors", "selector and label differ", "Deployment/edge", "matchLabels:\n      app.kubernetes.io/name: edge", "matchLabels:\n      app.kubernetes.io/name: edges"},
	{"selectors", "a selector takes everything", "StatefulSet/nats", "matchLabels:\n      app.kubernetes.io/name: nats", "matchLabels: {}"},
	{"selectors", "spreads somebody else's pods", "Deployment/worker", "matchLabels:\n            app.kubernetes.io/name: worker", "matchLabels:\n            app.kubernetes.io/name: edge"},
	{"selectors", "not spread over nodes", "StatefulSet/nats", "topologyKey: kubernetes.io/hostname", "topologyKey: topology.kubernetes.io/region"},
	{"services", "leads to nobody", "Service/edge", "app.kubernetes.io/name: edge", "app.kubernetes.io/name: gateway"},
	{"services", "leads to a port that is not there", "Service/edge", "targetPort: ws", "targetPort: http"},
	{"services", "names no pods", "Service/nats-headless", "clusterIP: None", "type: ClusterIP"},
	{"services", "a set of another Service", "StatefulSet/nats", "serviceName: nats-headless", "serviceName: nats"},
	{"route", "a listener that is not there", "HTTPRoute/edge", "sectionName: https", "sectionName: http"},
	{"route", "another host", "Gateway/wirepost", "hostname: chat.example.com", "hostname: www.example.com"},
	{"route", "a path that edges do not serve", "HTTPRoute/edge", "value: /ws", "value: /socket"},
	{"route", "a timeout", "HTTPRoute/edge", "request: 0s", "request: 15s"},
	{"route", "another port", "HTTPRoute/edge", "port: 8080", "port: 80"},
	{"route", "no protocol", "Service/edge", "appProtocol: kubernetes.io/ws", "appProtocol: https"},
	{"environment", "an unknown variable", "Deployment/edge", "name: DRAIN_RATE", "name: DRAIN_SPEED"},
	{"environment", "a value of another kind", "Deployment/edge", "value: 15s", "value: \"15\""},
	{"environment", "no key for tokens", "Deployment/edge", "name: JWT_PUBLIC_KEY_FILE", "name: JWT_AUDIENCE"},
	{"environment", "no word about the gateway", "Deployment/edge", "        - name: TRUSTED_PROXIES\n          value: 192.0.2.1/32\n", ""},
	{"environment", "a gateway that is no network", "Deployment/edge", "value: 192.0.2.1/32", "value: gateway.example.com"},
	{"environment", "a gateway that may be anybody", "Deployment/edge", "value: 192.0.2.1/32", "value: 10.0.0.0/8"},
	{"environment", "no store", "Deployment/worker", "name: MONGODB_URI", "name: MONGODB_DATABASE"},
	{"environment", "a key that the Secret does not have", "Deployment/worker", "key: uri", "key: url"},
	{"environment", "a file that is not mounted", "Deployment/edge", "value: /etc/wirepost/nats/ca.crt", "value: /etc/nats/ca.crt"},
	{"environment", "a file that the Secret does not have", "Deployment/edge", "value: /etc/wirepost/nats/ca.crt", "value: /etc/wirepost/nats/ca.pem"},
	{"environment", "a server that is not there", "Deployment/edge", "nats-2.nats-headless:4222", "nats-3.nats-headless:4222"},
	{"environment", "another port of NATS", "Deployment/worker", "nats-2.nats-headless:4222", "nats-2.nats-headless:4223"},
	{"environment", "no TLS", "Deployment/worker", "tls://nats-0", "nats://nats-0"},
	{"environment", "no key for NATS", "Deployment/worker", "        - name: NATS_NKEY\n          value: /etc/wirepost/nats/nkey.seed\n", ""},
	{"environment", "a fixed name", "Deployment/worker", "valueFrom:\n            fieldRef:\n              fieldPath: metadata.name", "value: worker"},
	{"environment", "an edge with a name that stays", "Deployment/edge", "- name: LISTEN", "- name: EDGE_NAME\n          value: edge-0\n        - name: LISTEN"},
	{"environment", "set twice", "Deployment/edge", "- name: DRAIN_NOTICE", "- name: DRAIN_RATE\n          value: \"1\"\n        - name: DRAIN_NOTICE"},
	{"environment", "an environment that is not there", "Deployment/edge", "name: layout-", "name: lanes-"},
	{"layout", "another number of lanes", "Deployment/edge", "- name: LISTEN", "- name: LANES\n          value: \"4\"\n        - name: LISTEN"},
	{"layout", "more replicas than servers", "Deployment/worker", "- name: REPLICAS\n          value: \"3\"", "- name: REPLICAS\n          value: \"5\""},
	{"ports", "the admin port on loopback", "Deployment/edge", "value: :9090", "value: 127.0.0.1:9090"},
	{"ports", "another port for clients", "Deployment/edge", "value: :8080", "value: :8081"},
	{"ports", "Prometheus asks another port", "Deployment/worker", "prometheus.io/port: \"9091\"", "prometheus.io/port: \"9090\""},
	{"volumes", "a Secret that nobody makes", "Deployment/edge", "secretName: edge-token", "secretName: edge-tokens"},
	{"volumes", "a file that is not in the ConfigMap", "StatefulSet/nats", "subPath: accounts.conf", "subPath: users.conf"},
	{"volumes", "a mount without a volume", "StatefulSet/nats", "      - name: nkeys\n        secret:", "      - name: keys\n        secret:"},
	{"volumes", "a Secret for everybody", "Deployment/edge", "defaultMode: 288", "defaultMode: 292"},
	{"volumes", "a certificate that nobody makes", "Gateway/wirepost", "name: edge-tls", "name: tls"},
	{"probes", "liveness asks for readiness", "Deployment/edge", "path: /healthz", "path: /readyz"},
	{"probes", "readiness asks for liveness", "Deployment/worker", "path: /readyz", "path: /healthz"},
	{"probes", "a path that is not there", "Deployment/worker", "path: /healthz", "path: /health"},
	{"probes", "the clients' port", "Deployment/edge", "port: admin", "port: ws"},
	{"probes", "no liveness", "StatefulSet/nats", "        livenessProbe:\n          failureThreshold: 3\n          httpGet:\n            path: /healthz?js-enabled-only=true\n            port: monitor\n          periodSeconds: 30\n          timeoutSeconds: 5\n", ""},
	{"grace", "shorter than a drain", "Deployment/edge", "terminationGracePeriodSeconds: 300", "terminationGracePeriodSeconds: 265"},
	{"grace", "a slower drain", "Deployment/edge", "value: \"500\"", "value: \"400\""},
	{"grace", "more sockets", "Deployment/edge", "sockets-per-pod: \"100000\"", "sockets-per-pod: \"150000\""},
	{"grace", "a longer notice", "Deployment/edge", "value: 15s", "value: 60s"},
	{"grace", "a notice that nobody notices", "Deployment/edge", "value: 15s", "value: 9s"},
	{"grace", "a worker is cut off", "Deployment/worker", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30"},
	{"grace", "a server is cut off", "StatefulSet/nats", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 50"},
	{"grace", "a server stops more slowly", "ConfigMap/nats-config", "lame_duck_duration: 30s", "lame_duck_duration: 2m"},
	{"memory", "no room for the kernel", "Deployment/edge", "value: 1200MiB", "value: 1700MiB"},
	{"memory", "Go's limit above the pod's", "Deployment/worker", "value: 800MiB", "value: 1024MiB"},
	{"memory", "no limit for Go", "StatefulSet/nats", "value: 3GiB", "value: 3Gi"},
	{"memory", "no limit", "Deployment/worker", "limits:\n            memory: 1Gi", "limits: {}"},
	{"memory", "NATS too small for its downlink", "StatefulSet/nats", "value: 3GiB", "value: 2GiB"},
	{"security", "root", "Deployment/edge", "runAsNonRoot: true", "runAsNonRoot: false"},
	{"security", "a disk that can be written to", "StatefulSet/nats", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"},
	{"security", "rights", "Deployment/worker", "drop:\n            - ALL", "drop:\n            - NET_RAW"},
	{"security", "a token", "Deployment/worker", "automountServiceAccountToken: false", "automountServiceAccountToken: true"},
	{"security", "a namespace that lets it happen", "Namespace/wirepost", "enforce: restricted", "enforce: baseline"},
	{"disruption", "two at a time", "PodDisruptionBudget/nats", "maxUnavailable: 1", "maxUnavailable: 2"},
	{"disruption", "nobody's budget", "PodDisruptionBudget/edge", "app.kubernetes.io/name: edge", "app.kubernetes.io/name: edges"},
	{"network", "edges reach the store", "NetworkPolicy/worker-mongodb", "app.kubernetes.io/name: worker", "app.kubernetes.io/name: edge"},
	{"network", "everybody's monitoring", "NetworkPolicy/nats", "kubernetes.io/metadata.name: keda", "{}"},
	{"network", "NATS for everybody in the namespace", "NetworkPolicy/nats", "matchLabels:\n          app.kubernetes.io/name: edge", "{}"},
	{"network", "edges for everybody", "NetworkPolicy/edge", "kubernetes.io/metadata.name: gateway", "{}"},
	{"network", "the admin port for everybody", "NetworkPolicy/edge", "port: 8080", "port: 9090"},
	{"network", "every port of NATS", "NetworkPolicy/nats", "    ports:\n    - port: 4222\n      protocol: TCP\n", ""},
	{"network", "nobody refuses", "NetworkPolicy/refuse-everything", "podSelector: {}", "podSelector: {matchLabels: {app: none}}"},
	{"network", "no way out", "NetworkPolicy/edge", "port: 4222", "port: 4223"},
	{"network", "no names", "NetworkPolicy/names", "k8s-app: kube-dns", "k8s-app: coredns"},
	{"images", "any version", "StatefulSet/nats", "image: nats:2.15.2-alpine", "image: nats:latest"},
	{"images", "the other binary", "Deployment/worker", "wirepost/worker:", "wirepost/edge:"},
	{"nats", "another port", "ConfigMap/nats-config", "port: 4222", "port: 4333"},
	{"nats", "monitoring elsewhere", "ConfigMap/nats-config", "http_port: 8222", "http_port: 8223"},
	{"nats", "streams on no volume", "ConfigMap/nats-config", "/data/jetstream", "/tmp/jetstream"},
	{"nats", "streams larger than the volume", "ConfigMap/nats-config", "max_file_store: 8GB", "max_file_store: 12GB"},
	{"nats", "streams that do not fit", "ConfigMap/nats-config", "max_file_store: 8GB", "max_file_store: 2GB"},
	{"nats", "a pid file elsewhere", "ConfigMap/nats-config", "/var/run/nats/nats.pid", "/var/run/nats.pid"},
	{"nats", "a server that is not there", "ConfigMap/nats-config", "nats-2.nats-headless:6222", "nats-3.nats-headless:6222"},
	{"nats", "too few servers for the routes", "StatefulSet/nats", "replicas: 3", "replicas: 2"},
	{"nats", "a certificate that is not there", "ConfigMap/nats-config", "/etc/nats/tls/tls.crt", "/etc/nats/tls/server.crt"},
	{"nats", "no word to the server", "StatefulSet/nats", "ldm=/var/run/nats/nats.pid", "stop=/var/run/nats/nats.pid"},
	{"nats", "not readable", "ConfigMap/nats-config", "jetstream {", "jetstream [{"},
	{"nats", "servers that do not advertise each other", "ConfigMap/nats-config", "no_advertise: false", "no_advertise: true"},
	{"nats", "no bound for subscriptions", "ConfigMap/nats-config", "max_subscriptions:", "# max_subscriptions:"},
	{"nats", "fewer subscriptions than an edge has users", "ConfigMap/nats-config", "max_subscriptions: 250000", "max_subscriptions: 100000"},
	{"nats", "disks written when it pleases", "ConfigMap/nats-config", "sync_interval:", "# sync_interval:"},
	{"workers", "a lane is not seen", "ScaledObject/worker", "stream: UP_3", "stream: UP_2"},
	{"workers", "another consumer", "ScaledObject/worker", "consumer: work", "consumer: worker"},
	{"workers", "another account", "ScaledObject/worker", "account: WIREPOST", "account: $G"},
	{"workers", "a name that other namespaces do not know", "ScaledObject/worker", "nats-headless.wirepost.svc:8222", "nats-headless:8222"},
	{"workers", "another port", "ScaledObject/worker", "svc:8222", "svc:4222"},
	{"workers", "not the sum", "ScaledObject/worker", "lane0 + lane1", "max(lane0, lane1)"},
	{"workers", "not all lanes", "ScaledObject/worker", " + lane7", ""},
	{"workers", "a lane twice", "ScaledObject/worker", "formula: lane0", "formula: lane1"},
	{"workers", "no formula", "ScaledObject/worker", "formula: lane0 + lane1 + lane2 + lane3 + lane4 + lane5 + lane6 + lane7", "formula: \"\""},
	{"workers", "another target", "ScaledObject/worker", "target: \"256\"", "target: \"10\""},
	{"workers", "more workers than lanes", "ScaledObject/worker", "maxReplicaCount: 8", "maxReplicaCount: 10"},
	{"workers", "one worker", "ScaledObject/worker", "minReplicaCount: 2", "minReplicaCount: 1"},
	{"workers", "falls back to few", "ScaledObject/worker", "behavior: currentReplicasIfHigher", "behavior: static"},
	{"workers", "down at once", "ScaledObject/worker", "stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 0"},
	{"workers", "a setting misspelt", "ScaledObject/worker", "natsServerMonitoringEndpoint:", "natsServerMonitoringEndPoint:"},
	{"workers", "scales something else", "ScaledObject/worker", "scaleTargetRef:\n    name: worker", "scaleTargetRef:\n    name: edge"},
	{"workers", "a number of its own", "Deployment/worker", "revisionHistoryLimit: 5", "revisionHistoryLimit: 5\n  replicas: 2"},
	{"edges", "a metric that is not there", "ScaledObject/edge", "wirepost_edge_connections{", "wirepost_edge_sockets{"},
	{"edges", "twice what is scraped twice", "ScaledObject/edge", "sum(max by (pod) (wirepost_edge_connections{namespace=\"wirepost\"}))", "sum(wirepost_edge_connections{namespace=\"wirepost\"})"},
	{"edges", "another namespace", "ScaledObject/edge", "namespace=\"wirepost\"", "namespace=\"default\""},
	{"edges", "more than a pod is made for", "ScaledObject/edge", "threshold: \"50000\"", "threshold: \"100000\""},
	{"edges", "no answer is zero", "ScaledObject/edge", "ignoreNullValues: \"false\"", "ignoreNullValues: \"true\""},
	{"edges", "two at a time", "ScaledObject/edge", "type: Pods\n            value: 1", "type: Pods\n            value: 2"},
	{"edges", "before the one before has drained", "ScaledObject/edge", "periodSeconds: 300", "periodSeconds: 120"},
}
