package pods

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// mount writes a container's volumes below root, as plain files: nothing else is in there
// but the program and /etc/hosts, as in an image made from scratch. What is in root already,
// such as the data of a pod that comes back, stays.
func mount(root string, pod *corev1.Pod, c corev1.Container, read source) error {
	for _, m := range c.VolumeMounts {
		data, err := content(pod, m.Name, read)
		if err != nil {
			return fmt.Errorf("%s: volume %s: %w", pod.Name, m.Name, err)
		}
		path := filepath.Join(root, m.MountPath)
		if m.SubPath != "" { // one file of the volume
			one, ok := data[m.SubPath]
			if !ok {
				return fmt.Errorf("%s: volume %s has no %s", pod.Name, m.Name, m.SubPath)
			}
			path, data = filepath.Dir(path), map[string][]byte{filepath.Base(path): one}
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		for name, text := range data {
			if err := os.WriteFile(filepath.Join(path, name), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// content returns the files of a volume. Those that begin empty have none.
func content(pod *corev1.Pod, volume string, read source) (map[string][]byte, error) {
	for _, v := range pod.Spec.Volumes {
		if v.Name != volume {
			continue
		}
		var kind, name string
		var optional *bool
		switch {
		case v.EmptyDir != nil, v.PersistentVolumeClaim != nil:
			return nil, nil
		case v.Secret != nil:
			kind, name, optional = "Secret", v.Secret.SecretName, v.Secret.Optional
		case v.ConfigMap != nil:
			kind, name, optional = "ConfigMap", v.ConfigMap.Name, v.ConfigMap.Optional
		default:
			return nil, fmt.Errorf("this kubelet has no volumes of that kind")
		}
		data, found, err := read(kind, name)
		if err == nil && !found && (optional == nil || !*optional) {
			err = fmt.Errorf("there is no %s %s", kind, name)
		}
		return data, err
	}
	return nil, fmt.Errorf("the pod has no such volume")
}
