package kube

import (
	"math/rand"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pick chooses what is worth to be tried.
type pick struct{ *rand.Rand }

func (p pick) of(texts ...string) string { return texts[p.Intn(len(texts))] }

func (p pick) some(texts ...string) (some []string) {
	for range p.Intn(3) {
		some = append(some, p.of(texts...))
	}
	return some
}

func (p pick) address() string {
	return p.of("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "fd00::1", "::ffff:10.0.0.1", "010.0.0.1", "x", "")
}

func (p pick) addresses() (some []string) {
	for range p.Intn(3) {
		some = append(some, p.address())
	}
	return some
}

// entries adds to a map.
func (p pick) entries(to *map[string]string, all map[string]string) {
	for key, value := range all {
		if p.Intn(2) == 0 {
			if *to == nil {
				*to = map[string]string{}
			}
			(*to)[key] = value
		}
	}
}

func seasonNode(node *corev1.Node, p pick) {
	p.entries(&node.Labels, map[string]string{corev1.LabelTopologyZone: "z"})
	p.entries(&node.Annotations, map[string]string{flannelManages: "true", flannelBackend: "vxlan"})
	if p.Intn(3) == 0 { // random ones have none
		node.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	for i := range node.Spec.Taints {
		node.Spec.Taints[i].Key = p.of(toBeDeleted, "another")
	}
	node.Spec.PodCIDR = p.of("10.0.1.0/24", "fd00:1::/64", "")
	node.Spec.PodCIDRs = p.some("10.0.1.0/24", "fd00:1::/64", "10.0.2.1/24", "192.0.2.0/28", "10.0.3.0")
	node.Status.Addresses = nil
	for _, address := range p.addresses() {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{
			Type: corev1.NodeAddressType(p.of("InternalIP", "Hostname")), Address: address,
		})
	}
}

func seasonPod(pod *corev1.Pod, p pick) {
	pod.Status.Phase = corev1.PodPhase(p.of("Running", "Pending", "Failed", "Succeeded"))
	pod.Status.PodIP, pod.Status.PodIPs = p.of("", p.address()), nil
	for _, address := range p.addresses() {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: address})
	}
	p.entries(&pod.Annotations, map[string]string{mirrored: "0123456789abcdef0123456789abcdef"})
	p.entries(&pod.Labels, map[string]string{"app": "web"})
	season := func(container *corev1.Container) {
		always := corev1.ContainerRestartPolicy(p.of("Always", "Never"))
		if container.RestartPolicy = &always; p.Intn(3) == 0 {
			container.RestartPolicy = nil
		}
		for i := range container.Ports {
			container.Ports[i].Protocol = corev1.Protocol(p.of("TCP", "UDP", "SCTP", "", "x"))
			container.Ports[i].ContainerPort = p.Int31n(70000)
		}
	}
	for i := range pod.Spec.Containers {
		season(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		season(&pod.Spec.InitContainers[i])
	}
}

func seasonPolicy(policy *networkingv1.NetworkPolicy, p pick) {
	spec := &policy.Spec
	spec.PolicyTypes = nil
	for _, name := range p.some("Ingress", "Egress", "x") {
		spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyType(name))
	}
	plain := p.Intn(2) == 0 // all is well
	if plain {
		spec.PolicyTypes, spec.PodSelector.MatchExpressions = nil, nil
	}
	season := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		for i := range peers {
			if block := peers[i].IPBlock; block != nil {
				block.CIDR, block.Except = p.of("10.0.0.0/8", "fd00::/8", "x"), p.some("10.1.0.0/16", "fd00:1::/64", "x")
			}
			if plain {
				peers[i] = networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}
			}
		}
		for i := range ports {
			protocol, port := corev1.Protocol(p.of("TCP", "UDP", "x")), intstr.FromInt32(p.Int31n(1000))
			ports[i].Protocol, ports[i].Port = &protocol, &port
			if plain {
				ports[i] = networkingv1.NetworkPolicyPort{}
			}
		}
	}
	for i := range spec.Ingress {
		season(spec.Ingress[i].From, spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		season(spec.Egress[i].To, spec.Egress[i].Ports)
	}
}

func seasonService(service *corev1.Service, p pick) {
	if p.Intn(4) == 0 {
		p.entries(&service.Labels, map[string]string{serviceProxyName: "x", corev1.IsHeadlessService: ""})
	}
	spec := &service.Spec
	spec.Type = corev1.ServiceType(p.of("ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName", ""))
	spec.ClusterIP = p.of(p.address(), "10.96.0.1", "None")
	spec.ClusterIPs = p.some("10.96.0.1", "fd96::1")
	spec.ExternalIPs, spec.LoadBalancerSourceRanges = p.addresses(), p.some("192.0.2.0/24", "fd00::/8", " 10.0.0.0/8", "x")
	spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(p.of("Local", "Cluster"))
	spec.SessionAffinity = corev1.ServiceAffinity(p.of("ClientIP", "None"))
	if spec.InternalTrafficPolicy != nil {
		*spec.InternalTrafficPolicy = corev1.ServiceInternalTrafficPolicy(p.of("Local", "Cluster"))
	}
	for i := range spec.Ports {
		spec.Ports[i].Protocol = corev1.Protocol(p.of("TCP", "UDP", "SCTP", "", "x"))
		spec.Ports[i].Port, spec.Ports[i].NodePort = p.Int31n(65536), p.Int31n(65536)
		if p.Intn(3) == 0 {
			spec.Ports[i].Protocol, spec.Ports[i].Port = corev1.ProtocolUDP, 53
		}
		if p.Intn(2) == 0 {
			spec.Ports[i].TargetPort = intstr.FromInt32(p.Int31n(70000) - 10)
		}
	}
	service.Status.LoadBalancer.Ingress = nil
	for _, address := range p.addresses() {
		mode := corev1.LoadBalancerIPMode(p.of("VIP", "Proxy"))
		ingress := corev1.LoadBalancerIngress{IP: address, IPMode: &mode}
		if p.Intn(2) == 0 {
			ingress.IPMode = nil
		}
		service.Status.LoadBalancer.Ingress = append(service.Status.LoadBalancer.Ingress, ingress)
	}
}

func seasonSlice(slice *discoveryv1.EndpointSlice, p pick) {
	p.entries(&slice.Labels, map[string]string{discoveryv1.LabelServiceName: "web"})
	if p.Intn(4) == 0 {
		p.entries(&slice.Labels, map[string]string{serviceProxyName: "x", corev1.IsHeadlessService: ""})
	}
	if p.Intn(4) == 0 {
		p.entries(&slice.Labels, map[string]string{discoveryv1.LabelManagedBy: controllerOfSlices})
	}
	p.entries(&slice.Annotations, map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-02T03:04:05.5Z"})
	slice.AddressType = discoveryv1.AddressType(p.of("IPv4", "IPv4", "IPv6", "FQDN"))
	for i := range slice.Ports {
		if protocol := corev1.Protocol(p.of("TCP", "UDP", "x")); p.Intn(3) > 0 {
			slice.Ports[i].Protocol = &protocol
		}
		if port := p.Int31n(65536); p.Intn(3) > 0 {
			slice.Ports[i].Port = &port
		}
	}
	for i := range slice.Endpoints {
		slice.Endpoints[i].Addresses = p.some("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "x")
	}
	if p.Intn(2) == 0 { // all is well
		slice.Ports, slice.AddressType = nil, discoveryv1.AddressTypeIPv4
		for i := range slice.Endpoints {
			slice.Endpoints[i].Addresses = []string{"10.0.0.1"}
		}
	}
}

func seasonIngress(ingress *networkingv1.Ingress, p pick) {
	p.entries(&ingress.Annotations, map[string]string{classAnnotation: "nginx", nginxAnnotations + "use-regex": "true", "other": "x"})
	backend := func(of *networkingv1.IngressBackend) {
		if p.Intn(4) > 0 {
			*of = networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: p.Int31n(70000), Name: p.of("", "http")}}}
		}
	}
	if ingress.Spec.DefaultBackend != nil {
		backend(ingress.Spec.DefaultBackend)
	}
	for i := range ingress.Spec.Rules {
		if http := ingress.Spec.Rules[i].HTTP; http != nil {
			for j := range http.Paths {
				backend(&http.Paths[j].Backend)
				if kind := networkingv1.PathType(p.of("Exact", "Prefix", "ImplementationSpecific", "x")); p.Intn(4) > 0 {
					http.Paths[j].PathType = &kind
				}
			}
		}
	}
	if p.Intn(2) == 0 { // all is well
		ingress.Spec.DefaultBackend, ingress.Spec.Rules = nil, nil
	}
	for i := range ingress.ManagedFields {
		ingress.ManagedFields[i].Subresource, ingress.ManagedFields[i].Manager = p.of("", "status"), p.of("x", "y", registrar)
	}
}
