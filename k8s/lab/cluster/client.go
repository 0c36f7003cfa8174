package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/wirepost/wirepost/k8s/lab/process"
)

// manager is the name under which objects are applied.
const manager = "k8s-lab"

// Client speaks to the API server, as an administrator with kubectl does.
type Client struct {
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	http    *http.Client
}

func newClient(config *rest.Config, transport *http.Client) (*Client, error) {
	dyn, err := dynamic.NewForConfigAndClient(config, transport)
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, transport)
	if err != nil {
		return nil, err
	}
	return &Client{dynamic: dyn, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco)), http: transport}, nil
}

// Render returns the YAML of a kustomization as kubectl kustomize does, also in its order: what
// others need comes first.
func Render(folder string) ([]byte, error) {
	o := krusty.MakeDefaultOptions()
	o.Reorder = krusty.ReorderOptionUnspecified
	built, err := krusty.MakeKustomizer(o).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

// Objects reads the objects of a YAML text, in their order.
func Objects(text []byte) (objects []*unstructured.Unstructured, err error) {
	docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := docs.Decode(&u.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			objects = append(objects, u)
		}
	}
}

// ApplyYAML applies each object of a text.
func (c *Client) ApplyYAML(ctx context.Context, text []byte) error {
	objects, err := Objects(text)
	if err != nil {
		return err
	}
	for _, u := range objects {
		if err := c.Apply(ctx, u, false); err != nil {
			return err
		}
	}
	return nil
}

// Apply applies an object on the server's side, and fails at a field that the server does not
// know. A dry run goes through validation and admission and stores nothing. A kind of a
// CRD that was applied just before is waited for.
func (c *Client) Apply(ctx context.Context, u *unstructured.Unstructured, dry bool) error {
	var r dynamic.ResourceInterface
	if err := process.Await(ctx, "the kind "+u.GetKind(), 20*time.Second, func(context.Context) (err error) {
		r, err = c.resource(u.GroupVersionKind(), u.GetNamespace())
		return err
	}); err != nil {
		return err
	}
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	force := true
	o := metav1.PatchOptions{FieldManager: manager, Force: &force, FieldValidation: metav1.FieldValidationStrict}
	if dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	// A CRD's endpoint is there a moment after its kind. Any other error is the answer.
	var refused error
	err = process.Await(ctx, u.GetKind()+" "+u.GetName(), 20*time.Second, func(ctx context.Context) error {
		_, err := r.Patch(ctx, u.GetName(), types.ApplyPatchType, data, o)
		if apierrors.IsNotFound(err) {
			return err
		}
		refused = err
		return nil
	})
	return errors.Join(err, refused)
}

func (c *Client) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	r := c.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return r.Namespace(namespace), nil
	}
	return r, nil
}

// Get reads an object into into, a pointer to its API type.
func (c *Client) Get(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, into any) error {
	r, err := c.resource(kind, namespace)
	if err != nil {
		return err
	}
	u, err := r.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into)
}

// Change is one operation of a JSON patch (RFC 6902): the value at a path is replaced.
type Change struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Replace is the Change of the value at a path.
func Replace(path string, value any) Change { return Change{"replace", path, value} }

// Patch changes an object.
func (c *Client) Patch(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, changes []Change) error {
	r, err := c.resource(kind, namespace)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	_, err = r.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: manager})
	return err
}

// Raw returns what the API server says at a path.
func (c *Client) Raw(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, nil
}

// token makes a token of a service account.
func (c *Client) token(ctx context.Context, namespace, name string) (string, error) {
	accounts := c.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}).Namespace(namespace)
	request := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"expirationSeconds": int64(24 * 3600)},
	}}
	made, err := accounts.Create(ctx, request, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", fmt.Errorf("token of %s: %w", name, err)
	}
	token, found, err := unstructured.NestedString(made.Object, "status", "token")
	if err != nil || !found {
		return "", errors.Join(err, apierrors.NewInternalError(errors.New("no token in the answer")))
	}
	return token, nil
}
