package kube

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-net/fairlead/model"
)

// addService puts what a document says of a Service where it belongs.
func addService(to *model.Snapshot, document []byte, found *[]model.Problem) error {
	var all model.Map[model.ServiceKey, named]
	if err := add(document, &all, convertNamed, found); err != nil {
		return err
	}
	for key, value := range all.All() {
		if value.service != nil {
			to.Services = to.Services.With(key, value.service)
		} else {
			to.Names = to.Names.With(key, value.name)
		}
	}
	return nil
}

// addSlice is like addService.
func addSlice(to *model.Snapshot, document []byte, found *[]model.Problem) error {
	if err := add(document, &to.Slices, convertSlice, found); err != nil || len(*found) > 0 {
		return err
	}
	return add(document, &to.Hosts, convertHosts, found)
}

// writeNames writes the documents of a snapshot that nothing but names is made of,
// sorted. Hosts that are EndpointSlices as well are written as those.
func (d *documents) writeNames(snapshot *model.Snapshot) {
	for _, key := range slices.SortedFunc(keys(snapshot.Names), func(a, b model.ServiceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		name, _ := snapshot.Names.Get(key)
		d.write(nameObjectOf(name))
	}
	for _, key := range slices.SortedFunc(keys(snapshot.Hosts), func(a, b model.SliceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		hosts, _ := snapshot.Hosts.Get(key)
		if _, both := snapshot.Slices.Get(key); !both {
			d.write(hostsObjectOf(hosts))
		}
	}
}

func nameObjectOf(n *model.Name) object {
	metadata := object{"namespace": n.Namespace, "name": n.Name}
	spec := object{}
	switch {
	case n.External != "":
		spec["type"], spec["externalName"] = corev1.ServiceTypeExternalName, n.External
	case len(n.ClusterIPs) == 0:
		spec["clusterIP"] = corev1.ClusterIPNone
	default:
		spec["clusterIP"], spec["clusterIPs"] = n.ClusterIPs[0], n.ClusterIPs
		spec["ports"] = portObjectsOf(n.Ports)
		metadata["labels"] = object{serviceProxyName: "other"} // its value is not known
	}
	return object{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
}

func hostsObjectOf(h *model.Hosts) object {
	types := [...]discoveryv1.AddressType{model.IPv4: discoveryv1.AddressTypeIPv4, model.IPv6: discoveryv1.AddressTypeIPv6}
	family := model.IPv4
	var ports, endpoints []object
	for _, port := range h.Ports {
		ports = append(ports, object{"name": port.Name, "protocol": port.Protocol, "port": port.Port})
	}
	for _, host := range h.Hosts {
		family = model.FamilyOf(host.Address)
		endpoint := object{"addresses": []any{host.Address}, "conditions": object{"ready": true}}
		if host.Hostname != "" {
			endpoint["hostname"] = host.Hostname
		}
		endpoints = append(endpoints, endpoint)
	}
	return object{
		"apiVersion": discoveryv1.SchemeGroupVersion.String(), "kind": "EndpointSlice",
		"metadata": object{
			"namespace": h.Namespace, "name": h.Name,
			"labels": object{discoveryv1.LabelServiceName: h.Service, corev1.IsHeadlessService: ""},
		},
		"addressType": types[family], "ports": ports, "endpoints": endpoints,
	}
}

// nameEndpoints adds to the document of an EndpointSlice what names are made of: it
// may be one of a headless Service, or is one that the controller of
// EndpointSlices made of another.
func nameEndpoints(document object, s *model.EndpointSlice, hosts *model.Hosts) {
	labels := document["metadata"].(object)["labels"].(object)
	if hosts == nil {
		labels[discoveryv1.LabelManagedBy] = controllerOfSlices
		return
	}
	hostnames := map[netip.Addr]string{}
	for _, host := range hosts.Hosts {
		hostnames[host.Address] = host.Hostname
	}
	for i, endpoint := range document["endpoints"].([]object) {
		if hostname := hostnames[s.Endpoints[i].Address]; hostname != "" {
			endpoint["hostname"] = hostname
		}
	}
}
