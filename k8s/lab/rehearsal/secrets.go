package rehearsal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// secrets makes those of k8s/README.md, step 4, in its way: keys and certificates of NATS
// by natssetup. MongoDB has neither password nor TLS here, and no gateway needs edge-tls.
func (r *run) secrets(ctx context.Context) error {
	dir := filepath.Join(r.o.Dir, "secrets")
	if out, err := exec.CommandContext(ctx, r.o.Setup, "-dir", dir, "init").CombinedOutput(); err != nil {
		return fmt.Errorf("natssetup: %w\n%s", err, out)
	}
	files := map[string]map[string]string{ // path by key by secret
		"nats-nkeys":      {"nkeys.conf": "nkeys.conf"},
		"nats-server-tls": {"tls.crt": "nats-server/tls.crt", "tls.key": "nats-server/tls.key", "ca.crt": "nats-server/ca.crt"},
		"nats-edge":       {"nkey.seed": "edge/nkey.seed", "replay.seed": "replay/nkey.seed", "ca.crt": "edge/ca.crt"},
		"nats-worker":     {"nkey.seed": "worker/nkey.seed", "ca.crt": "worker/ca.crt"},
	}
	data := map[string]map[string][]byte{
		"edge-token":     {"public.pem": r.crowd.PublicKey()},
		"worker-mongodb": {"uri": []byte(mongoURI)},
	}
	for name, keys := range files {
		data[name] = map[string][]byte{}
		for key, path := range keys {
			text, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				return err
			}
			data[name][key] = text
		}
	}
	for name, keys := range data {
		secret := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: keys}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(secret)
		if err != nil {
			return err
		}
		if err := r.cluster.Apply(ctx, &unstructured.Unstructured{Object: object}, false); err != nil {
			return err
		}
	}
	return nil
}
