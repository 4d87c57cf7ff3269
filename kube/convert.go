package kube

import (
	"cmp"
	"fmt"
	"maps"
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
	node := &model.Node{Name: name, UID: string(object.UID), Zone: intern(object.Labels[corev1.LabelTopologyZone]), Labels: model.LabelsOf(object.Labels)}
	if object.Annotations[flannelManages] == "true" {
		node.Flannel = cmp.Or(intern(object.Annotations[flannelBackend]), "unknown")
	}
	node.Leaving = !object.DeletionTimestamp.IsZero() ||
		slices.ContainsFunc(object.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == toBeDeleted })
	wrong := func(field string, err error) {
		to.problems = append(to.problems, notUnderstood("Node", &object.ObjectMeta, field, err))
	}
	for _, address := range object.Status.Addresses {
		all := &node.Addresses
		switch address.Type {
		case corev1.NodeInternalIP:
		case corev1.NodeExternalIP:
			all = &node.External
		default:
			continue
		}
		addr, err := netip.ParseAddr(address.Address)
		if err != nil {
			wrong("status.addresses", err)
			continue
		}
		*all = append(*all, addr.Unmap())
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
	s, err := newSparse(corev1.SchemeGroupVersion, &corev1.Pod{}, sharingPorts(),
		"metadata.uid", "metadata.labels", "metadata.annotations["+mirrored+"]", "spec.nodeName", "spec.hostNetwork",
		"spec.containers.ports.name", "spec.containers.ports.containerPort", "spec.containers.ports.protocol",
		"spec.initContainers.restartPolicy", "spec.initContainers.ports.name",
		"spec.initContainers.ports.containerPort", "spec.initContainers.ports.protocol",
		"status.phase", "status.podIP", "status.podIPs.ip")
	if err == nil {
		s.reset = resetPod
	}
	return s, err
}

// resetPod keeps the memory of what is large and decoded for each pod anew, none of
// which the conversion keeps.
func resetPod(pod *corev1.Pod) {
	labels, inits, containers, ips := pod.Labels, pod.Spec.InitContainers, pod.Spec.Containers, pod.Status.PodIPs
	pod.Reset()
	clear(labels)
	pod.Labels, pod.Spec.InitContainers, pod.Spec.Containers, pod.Status.PodIPs = labels, inits[:0], containers[:0], ips[:0]
}

// mirrored is the annotation of a pod that a kubelet has made to show one of its
// own, a static one: the UID that the kubelet knows it by.
const mirrored = corev1.MirrorPodAnnotationKey

func convertPod(object *corev1.Pod) converted[model.PodKey, *model.Pod] {
	pod := &model.Pod{
		PodKey:      model.PodKey{Namespace: intern(object.Namespace), Name: object.Name},
		UID:         model.UIDOf(cmp.Or(object.Annotations[mirrored], string(object.UID))),
		Node:        intern(object.Spec.NodeName),
		HostNetwork: object.Spec.HostNetwork,
		Finished:    object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed,
		Labels:      model.LabelsOf(object.Labels),
		Ports:       namedPorts(&object.Spec),
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

// namedPorts are those of containers that run as long as the pod does; init
// containers that are sidecars are among them (KEP-753).
func namedPorts(pod *corev1.PodSpec) (ports []model.ContainerPort) {
	add := func(container *corev1.Container) {
		for i := range container.Ports {
			port := &container.Ports[i]
			protocol, err := protocolOf(port.Protocol)
			if port.Name == "" || err != nil || port.ContainerPort < 1 || port.ContainerPort > 65535 {
				continue // the API server has checked: it is of no use to anyone
			}
			ports = append(ports, model.ContainerPort{Name: intern(port.Name), Protocol: protocol, Port: uint16(port.ContainerPort)})
		}
	}
	for i := range pod.InitContainers {
		if policy := pod.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			add(&pod.InitContainers[i])
		}
	}
	for i := range pod.Containers {
		add(&pod.Containers[i])
	}
	return slices.Clip(ports)
}

// convertNamespace gives it the label that names it, which API servers see to and
// a file may lack.
func convertNamespace(object *corev1.Namespace) converted[string, *model.Namespace] {
	labels := maps.Clone(object.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[corev1.LabelMetadataName] = object.Name
	namespace := &model.Namespace{Name: intern(object.Name), Labels: model.LabelsOf(labels)}
	return converted[string, *model.Namespace]{key: namespace.Name, value: namespace}
}

func notUnderstood(kind string, meta *metav1.ObjectMeta, field string, err error) model.Problem {
	return model.Problem{
		Kind: kind, Namespace: meta.Namespace, Name: meta.Name, Field: field, Reason: "NotUnderstood",
		Message: fmt.Sprintf("a value is ignored: %v", err),
		Remedy:  "correct the value, or what wrote it",
	}
}
