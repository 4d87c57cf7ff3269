// Package v1alpha1 has the kinds that Fairlead adds to Kubernetes: Network,
// the configuration and health of the whole cluster, and NodeNetwork, the
// health of one node. It is a schema and holds no logic. It is the only Go API
// that is promised: v1alpha1 only grows. Its types are plain values; copies
// that DeepCopy makes may be used concurrently.
//
// +kubebuilder:object:generate=true
// +groupName=fairlead.io
package v1alpha1

//go:generate go tool controller-gen object:headerFile=/dev/null paths=.
//go:generate go tool controller-gen crd paths=. output:crd:dir=../../deploy/crd
