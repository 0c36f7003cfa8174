package pods

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// source returns the data of a ConfigMap or a Secret of the pod's namespace; found is false
// when it is not there.
type source func(kind, name string) (data map[string][]byte, found bool, err error)

// environment returns what the container's process finds in its environment. An address
// without a host (":8080") gets the pod's: the pods here share one network.
func environment(pod *corev1.Pod, c corev1.Container, read source) ([]string, error) {
	values := map[string]string{"HOSTNAME": pod.Name}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil {
			return nil, fmt.Errorf("%s: envFrom is known of ConfigMaps alone", pod.Name)
		}
		data, found, err := read("ConfigMap", from.ConfigMapRef.Name)
		if err != nil || !found {
			return nil, fmt.Errorf("%s: ConfigMap %s: found is %v: %w", pod.Name, from.ConfigMapRef.Name, found, err)
		}
		for key, value := range data {
			values[key] = string(value)
		}
	}
	for _, v := range c.Env {
		value, err := valueOf(pod, c, v, read)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", pod.Name, v.Name, err)
		}
		if strings.HasPrefix(value, ":") {
			value = pod.Status.PodIP + value
		}
		values[v.Name] = value
	}
	var environ []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		environ = append(environ, name+"="+values[name])
	}
	return environ, nil
}

func valueOf(pod *corev1.Pod, c corev1.Container, v corev1.EnvVar, read source) (string, error) {
	switch from := v.ValueFrom; {
	case from == nil:
		return v.Value, nil
	case from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name":
		return pod.Name, nil
	case from.ResourceFieldRef != nil && from.ResourceFieldRef.Resource == "requests.cpu":
		return fmt.Sprint(c.Resources.Requests.Cpu().Value()), nil // whole CPUs, rounded up
	case from.SecretKeyRef != nil:
		data, _, err := read("Secret", from.SecretKeyRef.Name)
		if value, ok := data[from.SecretKeyRef.Key]; ok {
			return string(value), nil
		}
		return "", fmt.Errorf("no Secret %s with a key %s: %w", from.SecretKeyRef.Name, from.SecretKeyRef.Key, err)
	}
	return "", fmt.Errorf("it comes from where this kubelet does not look: %+v", v.ValueFrom)
}
