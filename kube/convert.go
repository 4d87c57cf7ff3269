package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/model"
)

// converted is what becomes of an object: small, and all that is kept of it.
type converted[K, V comparable] struct {
	key      K
	value    V
	absent   bool            // the object is of no use to us; there is no value
	problems []model.Problem // what could not be understood, and was left out
}

// intern makes equal strings share memory: a cluster has few nodes, zones and
// namespaces next to the pods that name them.
func intern(text string) string { return unique.Make(text).Value() }

// Annotations of flannel on its nodes: the first, with the value "true", says that
// it is one, the second its backend. They stay when flannel goes, until somebody
// removes them.
const (
	flannelManages = "flannel.alpha.coreos.com/kube-subnet-manager"
	flannelBackend = "flannel.alpha.coreos.com/backend-type"
)

// toBeDeleted is the taint that the cluster autoscaler puts on a node before it
// removes the machine (KEP-3458).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// What comes in thousands is read sparsely: what a conversion begins to read has to
// be among the fields that are named above it, and is zero if it is not.
// TestSparse compares the two ways.
func sparseNodes() (*sparse[*corev1.Node, string, *model.Node], error) {
	return newSparse(corev1.SchemeGroupVersion, &corev1.Node{}, convertNode,
		"metadata.uid", "metadata.labels", "metadata.annotations", "metadata.deletionTimestamp",
		"spec.podCIDR", "spec.podCIDRs", "spec.taints.key", "status.addresses")
}

func convertNode(object *corev1.Node) converted[string, *model.Node] {
	name := intern(object.Name)
	to := converted[string, *model.Node]{key: name}
	node := &model.Node{Name: name, UID: string(object.UID), Zone: intern(object.Labels[corev1.LabelTopologyZone])}
	if object.Annotations[flannelManages] == "true" {
		node.Flannel = cmp.Or(intern(object.Annotations[flannelBackend]), "unknown")
	}
	node.Leaving = !object.DeletionTimestamp.IsZero() ||
		slices.ContainsFunc(object.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == toBeDeleted })
	wrong := func(field string, err error) {
		to.problems = append(to.problems, notUnderstood("Node", &object.ObjectMeta, field, err))
	}
	for _, address := range object.Status.Addresses {
		if address.Type != corev1.NodeInternalIP {
			continue
		}
		addr, err := netip.ParseAddr(address.Address)
		if err != nil {
			wrong("status.addresses", err)
			continue
		}
		node.Addresses = append(node.Addresses, addr.Unmap())
	}
	cidrs := object.Spec.PodCIDRs
	if len(cidrs) == 0 && object.Spec.PodCIDR != "" {
		cidrs = []string{object.Spec.PodCIDR}
	}
	for _, text := range cidrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			wrong("spec.podCIDRs", err)
			continue
		}
		node.PodCIDRs = append(node.PodCIDRs, prefix.Masked())
	}
	to.value = node
	return to
}

func sparsePods() (*sparse[*corev1.Pod, model.PodKey, *model.Pod], error) {
	return newSparse(corev1.SchemeGroupVersion, &corev1.Pod{}, convertPod,
		"metadata.uid", "spec.nodeName", "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs.ip")
}

func convertPod(object *corev1.Pod) converted[model.PodKey, *model.Pod] {
	pod := &model.Pod{
		PodKey:      model.PodKey{Namespace: intern(object.Namespace), Name: object.Name},
		UID:         model.UIDOf(string(object.UID)),
		Node:        intern(object.Spec.NodeName),
		HostNetwork: object.Spec.HostNetwork,
		Finished:    object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed,
	}
	to := converted[model.PodKey, *model.Pod]{key: pod.PodKey, value: pod}
	ips := object.Status.PodIPs
	if len(ips) == 0 && object.Status.PodIP != "" {
		ips = []corev1.PodIP{{IP: object.Status.PodIP}}
	}
	if len(ips) > 0 {
		pod.Addresses = make([]netip.Addr, 0, len(ips))
	}
	for _, ip := range ips {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			to.problems = append(to.problems, notUnderstood("Pod", &object.ObjectMeta, "status.podIPs", err))
			continue
		}
		pod.Addresses = append(pod.Addresses, addr.Unmap())
	}
	return to
}

func notUnderstood(kind string, meta *metav1.ObjectMeta, field string, err error) model.Problem {
	return model.Problem{
		Kind: kind, Namespace: meta.Namespace, Name: meta.Name, Field: field, Reason: "NotUnderstood",
		Message: fmt.Sprintf("a value is ignored: %v", err),
		Remedy:  "correct the value, or what wrote it",
	}
}
