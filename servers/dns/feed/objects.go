package feed

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// The kinds of objects, by the word on the wire.
var kinds = map[string]kind{
	"service": objects[model.ServiceKey, model.Service, service]{
		name: "service", to: serviceTo, from: serviceFrom,
		at:  func(s *model.Snapshot) *model.Map[model.ServiceKey, *model.Service] { return &s.Services },
		key: func(k model.ServiceKey) *service { return &service{Namespace: k.Namespace, Name: k.Name} },
	},
	"name": objects[model.ServiceKey, model.Name, name]{
		name: "name", to: nameTo, from: nameFrom,
		at:  func(s *model.Snapshot) *model.Map[model.ServiceKey, *model.Name] { return &s.Names },
		key: func(k model.ServiceKey) *name { return &name{Namespace: k.Namespace, Name: k.Name} },
	},
	"hosts": objects[model.SliceKey, model.Hosts, hosts]{
		name: "hosts", to: hostsTo, from: hostsFrom,
		at:  func(s *model.Snapshot) *model.Map[model.SliceKey, *model.Hosts] { return &s.Hosts },
		key: func(k model.SliceKey) *hosts { return &hosts{Namespace: k.Namespace, Name: k.Name} },
	},
	"range": objects[string, model.ServiceCIDR, ranges]{
		name: "range",
		at:   func(s *model.Snapshot) *model.Map[string, *model.ServiceCIDR] { return &s.ServiceCIDRs },
		to:   func(c *model.ServiceCIDR) *ranges { return &ranges{c.Name, c.Prefixes} },
		from: func(r *ranges) (string, *model.ServiceCIDR) {
			return r.Name, &model.ServiceCIDR{Name: r.Name, Prefixes: r.Prefixes}
		},
		key: func(name string) *ranges { return &ranges{Name: name} },
	},
	"node": objects[string, model.Node, ranges]{
		name: "node",
		at:   func(s *model.Snapshot) *model.Map[string, *model.Node] { return &s.Nodes },
		to:   func(n *model.Node) *ranges { return &ranges{n.Name, n.PodCIDRs} },
		from: func(r *ranges) (string, *model.Node) { return r.Name, &model.Node{Name: r.Name, PodCIDRs: r.Prefixes} },
		key:  func(name string) *ranges { return &ranges{Name: name} },
	},
	"pod": objects[model.PodKey, model.Pod, pod]{
		name: "pod", to: podTo, from: podFrom, hidden: podsHidden,
		at:  func(s *model.Snapshot) *model.Map[model.PodKey, *model.Pod] { return &s.Pods },
		key: func(k model.PodKey) *pod { return &pod{Namespace: k.Namespace, Name: k.Name} },
	},
	"attachment": objects[model.AttachmentKey, model.Attachment, attachment]{
		name: "attachment", to: attachmentTo, from: attachmentFrom,
		at: func(s *model.Snapshot) *model.Map[model.AttachmentKey, *model.Attachment] { return &s.Attachments },
		key: func(k model.AttachmentKey) *attachment {
			return &attachment{Container: k.ContainerID, Interface: k.Interface}
		},
	},
}

// service is a Service that has addresses: as much of it as its name needs.
type service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Ports     []port       `json:"ports,omitempty"`
}

type port struct {
	Name     string         `json:"name,omitempty"`
	Protocol model.Protocol `json:"protocol"`
	Port     uint16         `json:"port"`
}

func serviceTo(s *model.Service) *service {
	return &service{s.Namespace, s.Name, s.ClusterIPs, portsTo(s.Ports)}
}

func serviceFrom(s *service) (model.ServiceKey, *model.Service) {
	key := model.ServiceKey{Namespace: s.Namespace, Name: s.Name}
	return key, &model.Service{ServiceKey: key, ClusterIPs: s.Addresses, Ports: portsFrom(s.Ports)}
}

func portsTo(from []model.ServicePort) (to []port) {
	for _, p := range from {
		to = append(to, port{p.Name, p.Protocol, p.Port})
	}
	return to
}

func portsFrom(from []port) (to []model.ServicePort) {
	for _, p := range from {
		to = append(to, model.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return to
}

// name is a Service of which there is nothing but its name.
type name struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	External  string       `json:"external,omitempty"`
	Ports     []port       `json:"ports,omitempty"`
}

func nameTo(n *model.Name) *name {
	return &name{n.Namespace, n.Name, n.ClusterIPs, n.External, portsTo(n.Ports)}
}

func nameFrom(n *name) (model.ServiceKey, *model.Name) {
	key := model.ServiceKey{Namespace: n.Namespace, Name: n.Name}
	return key, &model.Name{ServiceKey: key, ClusterIPs: n.Addresses, External: n.External, Ports: portsFrom(n.Ports)}
}

// hosts are endpoints of a headless Service.
type hosts struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // of the EndpointSlice
	Service   string `json:"service,omitempty"`
	Ports     []port `json:"ports,omitempty"`
	Hosts     []host `json:"hosts,omitempty"`
}

type host struct {
	Address  netip.Addr `json:"address"`
	Hostname string     `json:"hostname,omitempty"`
}

func hostsTo(h *model.Hosts) *hosts {
	to := &hosts{Namespace: h.Namespace, Name: h.Name, Service: h.Service}
	for _, p := range h.Ports {
		to.Ports = append(to.Ports, port(p))
	}
	for _, one := range h.Hosts {
		to.Hosts = append(to.Hosts, host(one))
	}
	return to
}

func hostsFrom(h *hosts) (model.SliceKey, *model.Hosts) {
	key := model.SliceKey{Namespace: h.Namespace, Name: h.Name}
	to := &model.Hosts{SliceKey: key, Service: h.Service}
	for _, p := range h.Ports {
		to.Ports = append(to.Ports, model.EndpointPort(p))
	}
	to.Hosts = make([]model.Host, 0, len(h.Hosts))
	for _, one := range h.Hosts {
		to.Hosts = append(to.Hosts, model.Host(one))
	}
	return key, to
}

// ranges are those of a ServiceCIDR, or of the pods of a node: of reverse names.
type ranges struct {
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// pod is one of the cluster, of which there are any only if pods have names.
type pod struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Addresses   []netip.Addr `json:"addresses,omitempty"`
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	Finished    bool         `json:"finished,omitempty"`
}

// podsHidden tells whether pods have no names.
func podsHidden(s *model.Snapshot) bool { return s.Network == nil || !s.Network.DNS.PodNames }

func podTo(p *model.Pod) *pod {
	return &pod{p.Namespace, p.Name, p.Addresses, p.HostNetwork, p.Finished}
}

func podFrom(p *pod) (model.PodKey, *model.Pod) {
	key := model.PodKey{Namespace: p.Namespace, Name: p.Name}
	return key, &model.Pod{PodKey: key, Addresses: p.Addresses, HostNetwork: p.HostNetwork, Finished: p.Finished}
}

// attachment is a pod of this node: who asks, and from which namespace.
type attachment struct {
	Container string       `json:"container"`
	Interface string       `json:"interface"`
	Namespace string       `json:"namespace,omitempty"`
	Pod       string       `json:"pod,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

func attachmentTo(a *model.Attachment) *attachment {
	return &attachment{a.ContainerID, a.Interface, a.Pod.Namespace, a.Pod.Name, a.Addresses}
}

func attachmentFrom(a *attachment) (model.AttachmentKey, *model.Attachment) {
	key := model.AttachmentKey{ContainerID: a.Container, Interface: a.Interface}
	return key, &model.Attachment{AttachmentKey: key, Pod: model.PodKey{Namespace: a.Namespace, Name: a.Pod}, Addresses: a.Addresses}
}
