package kube

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-net/fairlead/model"
)

// writeServices writes the documents of a snapshot that are about Services, sorted.
func (d *documents) writeServices(snapshot *model.Snapshot) {
	for _, name := range slices.Sorted(keys(snapshot.ServiceCIDRs)) {
		cidr, _ := snapshot.ServiceCIDRs.Get(name)
		d.write(object{
			"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "ServiceCIDR",
			"metadata": object{"name": cidr.Name}, "spec": object{"cidrs": cidr.Prefixes},
		})
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Services), func(a, b model.ServiceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		service, _ := snapshot.Services.Get(key)
		d.write(serviceObjectOf(service))
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Slices), func(a, b model.SliceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		slice, _ := snapshot.Slices.Get(key)
		document := sliceObjectOf(slice)
		hosts, _ := snapshot.Hosts.Get(key)
		nameEndpoints(document, slice, hosts)
		d.write(document)
	}
}

// serviceObjectOf names the type that has all that the Service has.
func serviceObjectOf(s *model.Service) object {
	spec := object{"type": corev1.ServiceTypeClusterIP, "clusterIPs": s.ClusterIPs}
	ports := portObjectsOf(s.Ports)
	spec["ports"] = ports
	if s.Serves != nil {
		serves(spec, ports, s.Serves)
	}
	if slices.ContainsFunc(s.Ports, func(port model.ServicePort) bool { return port.NodePort != 0 }) {
		spec["type"] = corev1.ServiceTypeNodePort
	}
	if len(s.ClusterIPs) > 0 {
		spec["clusterIP"] = s.ClusterIPs[0]
	}
	if len(s.ExternalIPs) > 0 {
		spec["externalIPs"] = s.ExternalIPs
	}
	if s.InternalLocal {
		spec["internalTrafficPolicy"] = corev1.ServiceInternalTrafficPolicyLocal
	}
	if s.ExternalLocal {
		spec["externalTrafficPolicy"] = corev1.ServiceExternalTrafficPolicyLocal
	}
	if s.Affinity != 0 {
		spec["sessionAffinity"] = corev1.ServiceAffinityClientIP
		spec["sessionAffinityConfig"] = object{"clientIP": object{"timeoutSeconds": s.Affinity}}
	}
	written := object{
		"apiVersion": "v1", "kind": "Service", "spec": spec,
		"metadata": object{
			"namespace": s.Namespace, "name": s.Name,
			"creationTimestamp": time.Unix(s.Created, 0).UTC().Format(time.RFC3339),
		},
	}
	if s.HostPorts {
		written["metadata"].(object)["annotations"] = object{hostPorts: "true"}
	}
	if len(s.LoadBalancerIPs) > 0 || s.SourceRanges != nil || s.HealthCheckNodePort != 0 {
		spec["type"] = corev1.ServiceTypeLoadBalancer
	}
	if s.SourceRanges != nil {
		spec["loadBalancerSourceRanges"] = s.SourceRanges
	}
	if s.HealthCheckNodePort != 0 {
		spec["healthCheckNodePort"] = s.HealthCheckNodePort
	}
	if len(s.LoadBalancerIPs) > 0 {
		var ingress []object
		for _, addr := range s.LoadBalancerIPs {
			ingress = append(ingress, object{"ip": addr})
		}
		written["status"] = object{"loadBalancer": object{"ingress": ingress}}
	}
	return written
}

func portObjectsOf(ports []model.ServicePort) (all []object) {
	for _, port := range ports {
		written := object{"protocol": port.Protocol, "port": port.Port}
		if port.Name != "" {
			written["name"] = port.Name
		}
		if port.NodePort != 0 {
			written["nodePort"] = port.NodePort
		}
		all = append(all, written)
	}
	return all
}

// serves writes whom a Service selects.
func serves(spec object, ports []object, of *model.Selected) {
	selector := object{}
	for key, value := range of.Labels.All() {
		selector[key] = value
	}
	spec["selector"] = selector
	for i, target := range of.Ports {
		if ports[i]["targetPort"] = target.Port; target.Name != "" {
			ports[i]["targetPort"] = target.Name
		}
	}
}

func sliceObjectOf(s *model.EndpointSlice) object {
	types := [...]discoveryv1.AddressType{model.IPv4: discoveryv1.AddressTypeIPv4, model.IPv6: discoveryv1.AddressTypeIPv6}
	var ports, endpoints []object
	for _, port := range s.Ports {
		ports = append(ports, object{"name": port.Name, "protocol": port.Protocol, "port": port.Port})
	}
	for i := range s.Endpoints {
		endpoints = append(endpoints, endpointObjectOf(&s.Endpoints[i]))
	}
	return object{
		"apiVersion": discoveryv1.SchemeGroupVersion.String(), "kind": "EndpointSlice",
		"metadata": object{
			"namespace": s.Namespace, "name": s.Name,
			"labels": object{discoveryv1.LabelServiceName: s.Service},
		},
		"addressType": types[s.Family], "ports": ports, "endpoints": endpoints,
	}
}

func endpointObjectOf(e *model.Endpoint) object {
	written := object{
		"addresses":  []any{e.Address},
		"conditions": object{"ready": e.Ready, "serving": e.Serving, "terminating": e.Terminating},
	}
	if e.Node != "" {
		written["nodeName"] = e.Node
	}
	if e.Hints == nil {
		return written
	}
	named := func(names []string) (all []object) {
		for _, name := range names {
			all = append(all, object{"name": name})
		}
		return all
	}
	hints := object{}
	if zones := named(e.Hints.Zones); zones != nil {
		hints["forZones"] = zones
	}
	if nodes := named(e.Hints.Nodes); nodes != nil {
		hints["forNodes"] = nodes
	}
	written["hints"] = hints
	return written
}
