package manifests

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// external are the Secrets that somebody makes before production is applied, with their
// keys, as the table of k8s/README.md has them.
var external = sync.OnceValue(func() map[string][]string {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		panic(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- secrets:production -->")
	table, _, _ = strings.Cut(table, "<!-- /secrets:production -->")
	quoted := regexp.MustCompile("`([^`]+)`")
	secrets := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		name := quoted.FindStringSubmatch(cells[1])[1]
		for _, key := range quoted.FindAllStringSubmatch(cells[2], -1) {
			secrets[name] = append(secrets[name], key[1])
		}
	}
	return secrets
})

// keysOf returns what a Secret or a ConfigMap holds; ok is false when it is neither
// rendered nor in the README's table.
func keysOf(o *overlay, kind, name string) (keys []string, ok bool) {
	if kind == "ConfigMap" {
		c, ok := named[*corev1.ConfigMap](o, name)
		if !ok {
			return nil, false
		}
		return slices.Collect(maps.Keys(c.Data)), true
	}
	if s, ok := named[*corev1.Secret](o, name); ok {
		return append(slices.Collect(maps.Keys(s.Data)), slices.Collect(maps.Keys(s.StringData))...), true
	}
	if !o.production() {
		return nil, false
	}
	keys, ok = external()[name]
	return keys, ok
}

// source is where a file of a container comes from.
type source struct {
	kind string // Secret, ConfigMap, emptyDir or claim
	name string
	key  string // of a Secret or a ConfigMap
}

// fileAt returns what a path in the workload's container is; ok is false when nothing is
// mounted there.
func fileAt(w workload, path string) (found source, ok bool) {
	longest := 0
	for _, m := range w.container().VolumeMounts {
		rest, under := strings.CutPrefix(path+"/", strings.TrimSuffix(m.MountPath, "/")+"/")
		if !under || len(m.MountPath) <= longest {
			continue
		}
		longest = len(m.MountPath)
		found = sourceOf(w, m.Name)
		found.key = strings.TrimSuffix(rest, "/")
		if m.SubPath != "" {
			found.key = m.SubPath
		}
	}
	return found, longest > 0
}

func sourceOf(w workload, volume string) source {
	for _, v := range w.spec().Volumes {
		switch {
		case v.Name != volume:
		case v.Secret != nil:
			return source{kind: "Secret", name: v.Secret.SecretName}
		case v.ConfigMap != nil:
			return source{kind: "ConfigMap", name: v.ConfigMap.Name}
		case v.EmptyDir != nil:
			return source{kind: "emptyDir"}
		}
	}
	for _, c := range w.claims {
		if c.Name == volume {
			return source{kind: "claim", name: c.Name}
		}
	}
	return source{}
}

// checkVolumes: what is mounted is there, and what is there is mounted; each Secret that
// the README asks for is used, with each of its keys.
func checkVolumes(_ *testing.T, o *overlay) (p problems) {
	used := map[string]bool{}
	for _, w := range o.pods {
		mounts := map[string]bool{}
		for _, m := range w.container().VolumeMounts {
			mounts[m.Name] = true
			s := sourceOf(w, m.Name)
			switch {
			case s.kind == "":
				p.add("%s mounts %s, which is no volume", w.GetName(), m.Name)
			case s.kind == "Secret" || s.kind == "ConfigMap":
				used[s.kind+" "+s.name] = true
				keys, ok := keysOf(o, s.kind, s.name)
				if !ok {
					p.add("%s mounts the %s %s, which nobody makes", w.GetName(), s.kind, s.name)
				} else if m.SubPath != "" && !slices.Contains(keys, m.SubPath) {
					p.add("%s mounts %s of %s, which is not in it", w.GetName(), m.SubPath, s.name)
				}
			}
		}
		for _, v := range w.spec().Volumes {
			if !mounts[v.Name] {
				p.add("%s does not mount its volume %s", w.GetName(), v.Name)
			}
			if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o7 != 0) {
				p.add("%s: anybody in the container may read the Secret %s", w.GetName(), v.Secret.SecretName)
			}
		}
		for _, e := range w.container().Env {
			if ref := e.ValueFrom; ref != nil && ref.SecretKeyRef != nil {
				used["Secret "+ref.SecretKeyRef.Name] = true
			}
		}
	}
	for _, g := range all[*gatewayv1.Gateway](o) {
		for _, l := range g.Spec.Listeners {
			for _, ref := range l.TLS.CertificateRefs {
				used["Secret "+string(ref.Name)] = true
				if _, ok := keysOf(o, "Secret", string(ref.Name)); !ok {
					p.add("the Gateway %s names the Secret %s, which nobody makes", g.Name, ref.Name)
				}
			}
		}
	}
	if o.production() {
		for name := range external() {
			if !used["Secret "+name] {
				p.add("k8s/README.md asks for the Secret %s, which nothing uses", name)
			}
		}
	}
	return p
}
