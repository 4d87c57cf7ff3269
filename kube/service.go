package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	netutils "k8s.io/utils/net"

	"github.com/fairlead-net/fairlead/model"
)

// notServed is a selector of EndpointSlices of Services that this node does not
// serve: those of another program, and headless ones, which have no address to
// serve. Both Services and EndpointSlices carry the labels.
const notServed = "!" + serviceProxyName + ",!" + corev1.IsHeadlessService

// serviceProxyName is the label of KEP-2447.
const serviceProxyName = "service.kubernetes.io/service-proxy-name"

// hostPorts is the annotation of a Service of SystemNamespace whose ports are ports of
// each node that has an endpoint. Of other namespaces, it would let whoever may make a
// Service take any port of all nodes.
const hostPorts = "fairlead.io/host-ports"

// labelled tells whether an object is one of those. The API server leaves slices
// out of a watch that are; a file does not.
func labelled(labels map[string]string) bool {
	_, others := labels[serviceProxyName]
	_, headless := labels[corev1.IsHeadlessService]
	return others || headless
}

// See sparseNodes.
func sparseServices() (*sparse[*corev1.Service, model.ServiceKey, named], error) {
	return newSparse(corev1.SchemeGroupVersion, &corev1.Service{}, convertNamed,
		"metadata.creationTimestamp", "metadata.labels", "metadata.annotations["+hostPorts+"]", "spec.type", "spec.clusterIP", "spec.clusterIPs", "spec.externalIPs", "spec.externalName",
		"spec.ports.name", "spec.ports.protocol", "spec.ports.port", "spec.ports.nodePort", "spec.ports.targetPort", "spec.selector",
		"spec.internalTrafficPolicy", "spec.externalTrafficPolicy", "spec.healthCheckNodePort",
		"spec.loadBalancerSourceRanges", "spec.sessionAffinity", "spec.sessionAffinityConfig", "status.loadBalancer")
}

// convertService leaves out what cannot be understood, with a Problem: the rest
// of the Service is served.
func convertService(object *corev1.Service) converted[model.ServiceKey, *model.Service] {
	key := model.ServiceKey{Namespace: intern(object.Namespace), Name: object.Name}
	to := converted[model.ServiceKey, *model.Service]{key: key}
	spec := &object.Spec
	if labelled(object.Labels) || spec.Type == corev1.ServiceTypeExternalName || spec.ClusterIP == corev1.ClusterIPNone || spec.ClusterIP == "" {
		to.absent = true
		return to
	}
	wrong := func(field string, err error) {
		to.problems = append(to.problems, notUnderstood("Service", &object.ObjectMeta, field, err))
	}
	addresses := func(field string, texts []string) (all []netip.Addr) {
		for _, text := range texts {
			addr, err := parseAddr(text)
			if err == nil && (addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast()) {
				err = fmt.Errorf("%s is not an address that a Service can have", addr)
			}
			if err != nil {
				wrong(field, err)
				continue
			}
			all = append(all, addr)
		}
		return all
	}
	s := &model.Service{
		ServiceKey:    key,
		Created:       object.CreationTimestamp.Unix(),
		ExternalIPs:   addresses("spec.externalIPs", spec.ExternalIPs),
		InternalLocal: spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: external(spec) && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if s.HostPorts = object.Annotations[hostPorts] == "true"; s.HostPorts && object.Namespace != SystemNamespace {
		s.HostPorts = false
		wrong("metadata.annotations["+hostPorts+"]", fmt.Errorf("only Services of namespace %s may have ports of nodes", SystemNamespace))
	}
	for _, addr := range addresses("spec.clusterIPs", clusterIPs(spec)) {
		if s.ClusterIP(model.FamilyOf(addr)).IsValid() {
			wrong("spec.clusterIPs", fmt.Errorf("%s is the second address of its family", addr))
			continue
		}
		s.ClusterIPs = append(s.ClusterIPs, addr)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		s.LoadBalancerIPs = addresses("status.loadBalancer.ingress", virtualIPs(object.Status.LoadBalancer.Ingress))
		s.SourceRanges = sourceRanges(spec.LoadBalancerSourceRanges, wrong)
		if s.ExternalLocal {
			s.HealthCheckNodePort = uint16(spec.HealthCheckNodePort)
		}
	}
	s.Affinity = affinity(spec)
	s.Ports = servicePorts(spec, wrong)
	if len(spec.Selector) > 0 && slices.ContainsFunc(s.Ports, answersDNS) {
		s.Serves = &model.Selected{Labels: model.LabelsOf(spec.Selector), Ports: targetsOf(spec)}
	}
	to.value = s
	return to
}

// servicePorts are those that can be understood.
func servicePorts(spec *corev1.ServiceSpec, wrong func(string, error)) (all []model.ServicePort) {
	for i, port := range spec.Ports {
		protocol, err := protocolOf(port.Protocol)
		if err == nil && (port.Port < 1 || port.Port > 65535) {
			err = fmt.Errorf("port %d is not between 1 and 65535", port.Port)
		}
		if err != nil {
			wrong(fmt.Sprintf("spec.ports[%d]", i), err)
			continue
		}
		all = append(all, model.ServicePort{
			Name: intern(port.Name), Protocol: protocol, Port: uint16(port.Port), NodePort: uint16(port.NodePort),
		})
	}
	return all
}

// answersDNS tells whether queries of DNS are sent to such a port: what finds names
// in /etc/resolv.conf knows no other.
func answersDNS(port model.ServicePort) bool { return port.Protocol == model.UDP && port.Port == 53 }

// targetsOf are where ports lead at the pods of a Service: of each that can be
// understood.
func targetsOf(spec *corev1.ServiceSpec) (all []model.ContainerPort) {
	for _, port := range spec.Ports {
		protocol, err := protocolOf(port.Protocol)
		if err != nil || port.Port < 1 || port.Port > 65535 {
			continue
		}
		target := model.ContainerPort{Protocol: protocol, Port: uint16(port.Port)}
		switch number := port.TargetPort.IntVal; {
		case port.TargetPort.Type == intstr.String:
			target.Name, target.Port = intern(port.TargetPort.StrVal), 0
		case number > 0 && number <= 65535:
			target.Port = uint16(number)
		}
		all = append(all, target)
	}
	return all
}

// external tells whether a Service has more addresses than its ClusterIPs.
func external(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer || len(spec.ExternalIPs) > 0
}

// affinity is in seconds; 0: none.
func affinity(spec *corev1.ServiceSpec) uint32 {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

// clusterIPs are those of a Service, which before Kubernetes 1.20 has only one.
func clusterIPs(spec *corev1.ServiceSpec) []string {
	if len(spec.ClusterIPs) > 0 {
		return spec.ClusterIPs
	}
	return []string{spec.ClusterIP}
}

// virtualIPs are the addresses that packets arrive with at a node. With the mode
// Proxy they come with one of the node's own (KEP-1860).
func virtualIPs(ingresses []corev1.LoadBalancerIngress) (all []string) {
	for _, ingress := range ingresses {
		if ingress.IP != "" && (ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP) {
			all = append(all, ingress.IP)
		}
	}
	return all
}

// sourceRanges are who may call. If none of those that are given can be
// understood, nobody may, rather than all.
func sourceRanges(texts []string, wrong func(string, error)) (all []netip.Prefix) {
	for _, text := range texts {
		prefix, err := parsePrefix(strings.TrimSpace(text))
		if err != nil {
			wrong("spec.loadBalancerSourceRanges", err)
			continue
		}
		all = append(all, prefix)
	}
	if len(texts) > 0 && len(all) == 0 {
		return []netip.Prefix{model.HostPrefix(netip.IPv4Unspecified()), model.HostPrefix(netip.IPv6Unspecified())}
	}
	return all
}

func protocolOf(protocol corev1.Protocol) (model.Protocol, error) {
	return model.ParseProtocol(cmp.Or(string(protocol), model.TCP.String()))
}

// parseAddr takes zeros in front of numbers as decimal, as all of Kubernetes
// does with old objects that have them.
func parseAddr(text string) (netip.Addr, error) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	if !ok {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	}
	return addr.Unmap(), nil
}

// parsePrefix is like parseAddr.
func parsePrefix(text string) (netip.Prefix, error) {
	_, parsed, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a range such as 192.0.2.0/24", text)
	}
	addr, _ := netip.AddrFromSlice(parsed.IP)
	bits, _ := parsed.Mask.Size()
	return netip.PrefixFrom(addr, bits), nil
}

// See sparseNodes.
func sparseSlices() (*sparse[*discoveryv1.EndpointSlice, model.SliceKey, *model.EndpointSlice], error) {
	s, err := newSparse(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{}, convertSlice,
		"metadata.labels", "metadata.annotations["+corev1.EndpointsLastChangeTriggerTime+"]",
		"addressType", "ports", "endpoints.addresses", "endpoints.conditions", "endpoints.nodeName", "endpoints.hints")
	if err == nil {
		s.reset = resetSlice
	}
	return s, err
}

// resetSlice is as resetPod.
func resetSlice(slice *discoveryv1.EndpointSlice) {
	labels, endpoints := slice.Labels, slice.Endpoints
	slice.Reset()
	clear(labels)
	slice.Labels, slice.Endpoints = labels, endpoints[:0]
}

// convertSlice fills in what is not said: an endpoint is ready and serves unless
// it says otherwise. Only the first address of an endpoint counts.
func convertSlice(object *discoveryv1.EndpointSlice) converted[model.SliceKey, *model.EndpointSlice] {
	key := model.SliceKey{Namespace: intern(object.Namespace), Name: object.Name}
	to := converted[model.SliceKey, *model.EndpointSlice]{key: key}
	slice := &model.EndpointSlice{SliceKey: key, Service: serviceOf(object), Triggered: triggered(object)}
	switch object.AddressType {
	case discoveryv1.AddressTypeIPv4:
		slice.Family = model.IPv4
	case discoveryv1.AddressTypeIPv6:
		slice.Family = model.IPv6
	default: // FQDN: nothing that packets could be sent to
		to.absent = true
	}
	if to.absent = to.absent || slice.Service == "" || labelled(object.Labels); to.absent {
		return to
	}
	wrong := func(field string, err error) {
		to.problems = append(to.problems, notUnderstood("EndpointSlice", &object.ObjectMeta, field, err))
	}
	for i := range object.Ports {
		port, err := convertPort(&object.Ports[i])
		if err != nil {
			wrong(fmt.Sprintf("ports[%d]", i), err)
			continue
		}
		slice.Ports = append(slice.Ports, port)
	}
	slice.Endpoints = make([]model.Endpoint, 0, len(object.Endpoints))
	hints := map[string]*model.Hints{}
	for i := range object.Endpoints {
		endpoint, err := convertEndpoint(&object.Endpoints[i], slice)
		if err != nil {
			wrong(fmt.Sprintf("endpoints[%d].addresses", i), err)
			continue
		}
		endpoint.Hints = convertHints(object.Endpoints[i].Hints, hints)
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	to.value = slice
	return to
}

// triggered is when what the slice was made of changed. What is not understood is
// not told of: nobody wrote it by hand, and nothing depends on it.
func triggered(object *discoveryv1.EndpointSlice) int64 {
	text, ok := object.Annotations[corev1.EndpointsLastChangeTriggerTime]
	if !ok {
		return 0
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0
	}
	return at.UnixNano()
}

// serviceOf is the name of the Service of a slice. The controller of EndpointSlices
// begins their names with it, so that it takes no memory.
func serviceOf(slice *discoveryv1.EndpointSlice) string {
	service := slice.Labels[discoveryv1.LabelServiceName]
	if strings.HasPrefix(slice.Name, service) {
		return slice.Name[:len(service)]
	}
	return intern(service)
}

func convertPort(port *discoveryv1.EndpointPort) (to model.EndpointPort, err error) {
	if port.Name != nil {
		to.Name = intern(*port.Name)
	}
	var protocol corev1.Protocol
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	if to.Protocol, err = protocolOf(protocol); err != nil {
		return to, err
	}
	if port.Port == nil {
		return to, errors.New("a port without a number leads nowhere")
	}
	if *port.Port < 1 || *port.Port > 65535 {
		return to, fmt.Errorf("port %d is not between 1 and 65535", *port.Port)
	}
	to.Port = uint16(*port.Port)
	return to, nil
}

// convertEndpoint leaves out the hints.
func convertEndpoint(object *discoveryv1.Endpoint, of *model.EndpointSlice) (to model.Endpoint, err error) {
	if len(object.Addresses) == 0 {
		return to, errors.New("an endpoint has no address")
	}
	if to.Address, err = parseAddr(object.Addresses[0]); err != nil {
		return to, err
	}
	if model.FamilyOf(to.Address) != of.Family {
		return to, fmt.Errorf("%s is not of addressType %s", to.Address, of.Family)
	}
	// Who may write slices is not to reach what only the node itself may: its own
	// services, and those that clouds have for it (CVE-2021-25737). Those of the API
	// server are its own to say.
	private := (to.Address.IsLoopback() || to.Address.IsLinkLocalUnicast()) && (of.Namespace != "default" || of.Service != "kubernetes")
	if private || to.Address.IsUnspecified() || to.Address.IsMulticast() {
		return to, fmt.Errorf("%s is not the address of one endpoint", to.Address)
	}
	if object.NodeName != nil {
		to.Node = intern(*object.NodeName)
	}
	conditions := &object.Conditions
	to.Ready = conditions.Ready == nil || *conditions.Ready
	to.Serving = conditions.Serving == nil || *conditions.Serving
	to.Terminating = conditions.Terminating != nil && *conditions.Terminating
	return to, nil
}

// convertHints shares equal ones, by what they say: a slice has many endpoints and
// few zones.
func convertHints(hints *discoveryv1.EndpointHints, known map[string]*model.Hints) *model.Hints {
	if hints == nil || len(hints.ForZones)+len(hints.ForNodes) == 0 {
		return nil
	}
	to := &model.Hints{}
	for _, zone := range hints.ForZones {
		to.Zones = append(to.Zones, intern(zone.Name))
	}
	for _, node := range hints.ForNodes {
		to.Nodes = append(to.Nodes, intern(node.Name))
	}
	says := strings.Join(to.Zones, ",") + "|" + strings.Join(to.Nodes, ",")
	if same, ok := known[says]; ok {
		return same
	}
	known[says] = to
	return to
}

func convertServiceCIDR(object *networkingv1.ServiceCIDR) converted[string, *model.ServiceCIDR] {
	cidr := &model.ServiceCIDR{Name: object.Name}
	to := converted[string, *model.ServiceCIDR]{key: object.Name, value: cidr}
	for _, text := range object.Spec.CIDRs {
		prefix, err := parsePrefix(text)
		if err != nil {
			to.problems = append(to.problems, notUnderstood("ServiceCIDR", &object.ObjectMeta, "spec.cidrs", err))
			continue
		}
		cidr.Prefixes = append(cidr.Prefixes, prefix)
	}
	return to
}
