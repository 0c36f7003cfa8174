// Package autoscaler computes how many workers there should be as a cluster would: with
// the manifest that is shipped (k8s/overlays/production/worker-scaling.yaml), the figures
// that KEDA's nats-jetstream scaler reads from the nats-servers' /jsz, the formula in the
// language in which KEDA evaluates it, and the rules of Kubernetes' HorizontalPodAutoscaler.
//
//	manifest ─► formula ┐
//	/jsz ─► lag ────────┴─► sum ─► HPA: ⌈sum ÷ target⌉, stabilised, limited by policies
//
// It starts and stops nothing: that is its caller's. It is not KEDA and no HPA controller,
// but their rules written down once more, for a rehearsal on a machine without a cluster.
package autoscaler
