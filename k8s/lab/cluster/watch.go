package cluster

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Watch calls changed with each object of a resource, now and whenever it changes, and gone
// with each that is deleted, one call at a time, until ctx ends. namespace "" is all of them.
func Watch[T any](ctx context.Context, c *Client, resource schema.GroupVersionResource, namespace string, changed, gone func(*T)) error {
	r := c.dynamic.Resource(resource).Namespace(namespace)
	typed := func(object any, do func(*T)) {
		if last, is := object.(cache.DeletedFinalStateUnknown); is {
			object = last.Obj
		}
		var t T
		if u, ok := object.(*unstructured.Unstructured); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &t) == nil {
			do(&t)
		}
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return r.Watch(ctx, o)
			},
		},
		ObjectType: &unstructured.Unstructured{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { typed(object, changed) },
			UpdateFunc: func(_, object any) { typed(object, changed) },
			DeleteFunc: func(object any) { typed(object, gone) },
		},
	})
	go controller.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		return context.Cause(ctx)
	}
	return nil
}
