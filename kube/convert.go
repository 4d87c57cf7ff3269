package kube

import (
	"fmt"
	"net/netip"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/model"
)

// converted is what becomes of an object: small, and all that is kept of it.
type converted[K, V comparable] struct {
	key      K
	value    V
	problems []model.Problem // what could not be understood, and was left out
}

// intern makes equal strings share memory: a cluster has few nodes, zones and
// namespaces next to the pods that name them.
func intern(text string) string { return unique.Make(text).Value() }

func convertNode(object *corev1.Node) converted[string, *model.Node] {
	name := intern(object.Name)
	to := converted[string, *model.Node]{key: name}
	node := &model.Node{Name: name, UID: string(object.UID), Zone: intern(object.Labels[corev1.LabelTopologyZone])}
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

func convertPod(object *corev1.Pod) converted[model.PodKey, *model.Pod] {
	pod := &model.Pod{
		PodKey:      model.PodKey{Namespace: intern(object.Namespace), Name: object.Name},
		UID:         string(object.UID),
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

// convertNetwork fills in defaults. A field that is wrong gets its default,
// too, and a Problem. The CRD's own validation lets none of these through, but
// it may be an older one, or missing.
func convertNetwork(object *v1alpha1.Network) converted[string, *model.Network] {
	network, spec := model.DefaultNetwork(), &object.Spec
	to := converted[string, *model.Network]{key: object.Name, value: network}
	wrong := func(field, message string) {
		to.problems = append(to.problems, model.Problem{
			Kind: "Network", Name: object.Name, Field: field, Reason: "Invalid", Message: message,
			Remedy: "correct it with kubectl edit networks.fairlead.io " + object.Name,
		})
	}
	switch backend := model.Backend(spec.Backend); backend {
	case "", model.BackendVXLAN:
	default:
		wrong("spec.backend", fmt.Sprintf("%q is not a backend; vxlan is", backend))
	}
	if spec.DirectRouting != nil {
		network.DirectRouting = *spec.DirectRouting
	}
	if spec.Masquerade != nil {
		network.Masquerade = *spec.Masquerade
	}
	if mtu := spec.MTU; mtu == 0 || mtu >= 576 && mtu <= 65535 {
		network.MTU = int(mtu)
	} else {
		wrong("spec.mtu", fmt.Sprintf("%d is neither 0 nor between 576 and 65535 bytes", mtu))
	}
	switch vni := spec.VXLAN.VNI; {
	case vni >= 1 && vni < 1<<24:
		network.VXLANVNI = uint32(vni)
	case vni != 0:
		wrong("spec.vxlan.vni", fmt.Sprintf("%d is not between 1 and 16777215", vni))
	}
	switch port := spec.VXLAN.Port; {
	case port >= 1 && port <= 65535:
		network.VXLANPort = uint16(port)
	case port != 0:
		wrong("spec.vxlan.port", fmt.Sprintf("%d is not between 1 and 65535", port))
	}
	return to
}
