package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/conf"
	corev1 "k8s.io/api/core/v1"
)

// settingsOf is a block of a NATS configuration.
type settingsOf = map[string]any

// natsConfig reads the configuration that the container is started with, from what is
// mounted. (That the server takes it is another test's: scripts/itest/security.)
func natsConfig(t *testing.T, o *overlay) (settingsOf, error) {
	w, ok := o.workload("nats")
	if !ok {
		return nil, fmt.Errorf("there is no nats")
	}
	root := t.TempDir()
	var text strings.Builder
	for _, m := range w.container().VolumeMounts {
		s := sourceOf(w, m.Name)
		c, ok := named[*corev1.ConfigMap](o, s.name)
		if s.kind != "ConfigMap" || !ok || m.SubPath == "" {
			continue
		}
		text.WriteString(c.Data[m.SubPath])
		if err := place(root, m.MountPath, c.Data[m.SubPath]); err != nil {
			return nil, err
		}
	}
	// The keys are of whoever installs; any text will do where they stand.
	var keys strings.Builder
	for _, name := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllStringSubmatch(text.String(), -1) {
		if strings.Contains(name[1], "NKEY") {
			fmt.Fprintf(&keys, "%s: \"any\"\n", name[1])
		}
	}
	if s, ok := fileAt(w, "/etc/nats/nkeys/nkeys.conf"); ok && s.kind == "Secret" {
		if err := place(root, "/etc/nats/nkeys/nkeys.conf", keys.String()); err != nil {
			return nil, err
		}
	}
	for _, e := range w.container().Env {
		t.Setenv(e.Name, "nats-0") // the configuration may name it
	}
	command := w.container().Command
	return conf.ParseFile(filepath.Join(root, command[len(command)-1]))
}

func place(root, path, text string) error {
	file := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o600)
}

// block returns a block of a configuration, empty when it is not there.
func block(s settingsOf, name string) settingsOf {
	b, _ := s[name].(settingsOf)
	return b
}

// duration reads a setting such as 30s.
func duration(s settingsOf, name string) time.Duration {
	d, _ := time.ParseDuration(fmt.Sprint(s[name]))
	return d
}

// natsStop is what a server needs to stop in order; an hour when it does not say.
func natsStop(t *testing.T, o *overlay) time.Duration {
	s, err := natsConfig(t, o)
	grace, rest := duration(s, "lame_duck_grace_period"), duration(s, "lame_duck_duration")
	if err != nil || grace == 0 || rest == 0 {
		return time.Hour
	}
	return grace + rest + 10*time.Second
}

// natsMonitor returns the port of the monitoring endpoint.
func natsMonitor(o *overlay) (string, bool) {
	w, _ := o.workload("nats")
	n, ok := containerPort(w, "monitor")
	return fmt.Sprint(n), ok
}

// natsAccount returns the account of the project's streams.
func natsAccount(t *testing.T, o *overlay) string {
	s, err := natsConfig(t, o)
	if err != nil {
		return ""
	}
	for name, account := range block(s, "accounts") {
		if _, ok := account.(settingsOf)["jetstream"]; ok {
			return name
		}
	}
	return "$G"
}

// checkNATS: what the configuration says of ports, files and servers is what the pod has.
func checkNATS(t *testing.T, o *overlay) (p problems) {
	s, err := natsConfig(t, o)
	if err != nil {
		return problems{"the configuration cannot be read: " + err.Error()}
	}
	w, _ := o.workload("nats")
	cluster := block(s, "cluster")
	ports := map[string]any{"client": s["port"], "monitor": s["http_port"]}
	if len(cluster) > 0 {
		ports["route"] = cluster["port"]
	}
	for name, port := range ports {
		if n, _ := containerPort(w, name); fmt.Sprint(n) != fmt.Sprint(port) {
			p.add("the port %s is %v in the configuration and %d in the pod", name, port, n)
		}
	}
	if servers := int(*w.replicas); servers > 1 {
		p = append(p, clusterProblems(o, cluster, servers)...)
	}
	if hook := w.container().Lifecycle; hook == nil || hook.PreStop == nil || hook.PreStop.Exec == nil ||
		!slices.Equal(hook.PreStop.Exec.Command, []string{"nats-server", "--signal", "ldm=" + fmt.Sprint(s["pid_file"])}) {
		p.add("the server is not told to leave before it is stopped, by the pid in %v", s["pid_file"])
	}
	if from, _ := fileAt(w, fmt.Sprint(s["pid_file"])); from.kind != "emptyDir" {
		p.add("%v cannot be written", s["pid_file"])
	}
	if o.production() && (len(block(s, "accounts")) == 0 || len(block(s, "tls")) == 0 || len(block(cluster, "tls")) == 0) {
		p.add("production without accounts or without TLS")
	}
	edge, _ := o.workload("edge")
	if most, _ := s["max_subscriptions"].(int64); o.production() && most < 2*sockets(edge) {
		p.add("max_subscriptions is %v, an edge may have %d users", s["max_subscriptions"], sockets(edge))
	}
	_, layout := workerConfig(t, o)
	p = append(p, diskProblems(w, block(s, "jetstream"), layout.Layout.UplinkMaxBytes+layout.Layout.DownlinkMaxBytes+deadBytes)...)
	return append(p, certificateProblems(o, w, block(s, "tls"), block(cluster, "tls"))...)
}

func clusterProblems(o *overlay, cluster settingsOf, servers int) (p problems) {
	routes, _ := cluster["routes"].([]any)
	if len(routes) != servers {
		p.add("%d routes for %d servers", len(routes), servers)
	}
	for _, r := range routes {
		_, host, _ := strings.Cut(fmt.Sprint(r), "://")
		if name, port, _ := strings.Cut(host, ":"); !resolves(o, name, port) {
			p.add("there is no server at the route %v", r)
		}
	}
	if cluster["no_advertise"] == true {
		p.add("servers do not advertise each other: KEDA finds no leader while one of them is away")
	}
	return p
}

// deadBytes is what the stream of dead messages may hold (worker/streams).
const deadBytes = 256 << 20

// diskProblems: streams are on the volume, it is larger than they may become, and the
// limits of the project's streams, which reserve their bytes, fit.
func diskProblems(w workload, js settingsOf, streams int64) (p problems) {
	from, ok := fileAt(w, fmt.Sprint(js["store_dir"]))
	if !ok || from.kind != "claim" {
		return problems{fmt.Sprintf("streams are in %v, which is not on the volume", js["store_dir"])}
	}
	volume := w.claims[0].Spec.Resources.Requests[corev1.ResourceStorage]
	most, ok := js["max_file_store"].(int64)
	if !ok || most > volume.Value()/100*90 || most < streams {
		p.add("max_file_store is %v, the volume has %d, the streams reserve %d", js["max_file_store"], volume.Value(), streams)
	}
	if js["sync_interval"] == nil {
		p.add("sync_interval is left to the server's default")
	}
	return p
}

func certificateProblems(o *overlay, w workload, blocks ...settingsOf) (p problems) {
	for _, tls := range blocks {
		for _, setting := range []string{"cert_file", "key_file", "ca_file"} {
			file, ok := tls[setting].(string)
			if !ok {
				continue
			}
			from, _ := fileAt(w, file)
			if keys, _ := keysOf(o, from.kind, from.name); from.kind != "Secret" || !slices.Contains(keys, from.key) {
				p.add("%s is %s, which no Secret has", setting, file)
			}
		}
	}
	return p
}
