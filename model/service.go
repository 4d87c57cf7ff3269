package model

import (
	"net/netip"
	"slices"
)

// ServiceKey names a Service.
type ServiceKey struct{ Namespace, Name string }

func (k ServiceKey) String() string { return k.Namespace + "/" + k.Name }

// Service is a Service that has addresses to be reached at. Those that have
// none, because they are headless, of type ExternalName, or another program's
// (label service.kubernetes.io/service-proxy-name), are not in a snapshot.
type Service struct {
	ServiceKey
	Created     int64        // seconds since 1970; of two that claim an address, the older one has it
	ClusterIPs  []netip.Addr // at most one of each family; a family without one is not served
	ExternalIPs []netip.Addr
	// LoadBalancerIPs are those of status whose ipMode is VIP or absent.
	LoadBalancerIPs []netip.Addr
	// SourceRanges are who may call LoadBalancerIPs, masked; nil: all.
	SourceRanges []netip.Prefix
	Ports        []ServicePort
	// Affinity is how long a client stays with its endpoint after its last new
	// connection, in seconds; 0: it does not.
	Affinity uint32
	// InternalLocal and ExternalLocal say that clients reach only endpoints of
	// the node that they call through: by ClusterIPs, and by all other addresses
	// (internalTrafficPolicy and externalTrafficPolicy).
	InternalLocal, ExternalLocal bool
	HealthCheckNodePort          uint16 // 0: none
	// HostPorts says that its ports are ports of each node that has an endpoint of it,
	// and lead there, as the hostPort of a container does.
	HostPorts bool
	// Serves is whom it selects, of Services that could answer queries of DNS:
	// those with port 53 of UDP. Nil: of all others, and without a selector.
	Serves *Selected
}

// Selected are the pods that a Service selects, whether there are any or not.
type Selected struct {
	Labels Labels // all of them, at least
	// Ports are where its ports lead at those pods, of each in turn: by number, or
	// by the Name of a container's port, and then Port is 0.
	Ports []ContainerPort
}

// Equal tells whether nothing differs.
func (s *Selected) Equal(other *Selected) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s.Labels == other.Labels && slices.Equal(s.Ports, other.Ports)
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string // may be empty; unique in the Service
	Protocol Protocol
	Port     uint16
	NodePort uint16 // of all nodes; 0: none
}

// ClusterIP returns the address of a family; invalid if it has none.
func (s *Service) ClusterIP(family Family) netip.Addr {
	for _, addr := range s.ClusterIPs {
		if FamilyOf(addr) == family {
			return addr
		}
	}
	return netip.Addr{}
}

// Equal tells whether nothing that a plan could see differs.
func (s *Service) Equal(other *Service) bool {
	return s.ServiceKey == other.ServiceKey && s.Created == other.Created && s.Affinity == other.Affinity &&
		s.InternalLocal == other.InternalLocal && s.ExternalLocal == other.ExternalLocal && s.HostPorts == other.HostPorts &&
		s.HealthCheckNodePort == other.HealthCheckNodePort && (s.SourceRanges == nil) == (other.SourceRanges == nil) &&
		slices.Equal(s.ClusterIPs, other.ClusterIPs) && slices.Equal(s.ExternalIPs, other.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, other.LoadBalancerIPs) && slices.Equal(s.SourceRanges, other.SourceRanges) &&
		slices.Equal(s.Ports, other.Ports) && s.Serves.Equal(other.Serves)
}

// SliceKey names an EndpointSlice.
type SliceKey struct{ Namespace, Name string }

func (k SliceKey) String() string { return k.Namespace + "/" + k.Name }

// EndpointSlice is some of the endpoints of a Service, in one family. There are
// many in a large cluster, each a hundred endpoints: strings and Hints in them
// are shared.
type EndpointSlice struct {
	SliceKey
	Service   string // of the same namespace
	Family    Family
	Ports     []EndpointPort
	Endpoints []Endpoint
	// Triggered is when the pods or the Service changed that the controller of
	// EndpointSlices made this of, by its clock, as Unix nanoseconds; 0: unknown.
	// It is for measuring: no plan sees it, and Equal does not.
	Triggered int64
}

// EndpointPort is where a port of the Service is at the endpoints of one slice.
type EndpointPort struct {
	Name     string // that of the ServicePort
	Protocol Protocol
	Port     uint16 // 1 to 65535
}

// Endpoint is one address behind a Service, with its conditions.
type Endpoint struct {
	Address netip.Addr
	Node    string // empty: unknown, or outside of the cluster
	Hints   *Hints // nil: none
	// Ready endpoints are for new connections. Serving ones answer still: if they
	// are Terminating they take connections where none is ready.
	Ready, Serving, Terminating bool
}

// Hints are from where an endpoint is best called, as the controller of
// EndpointSlices has found (trafficDistribution of a Service).
type Hints struct{ Zones, Nodes []string }

// Equal tells whether nothing differs; nil is equal only to nil.
func (h *Hints) Equal(other *Hints) bool {
	if h == nil || other == nil {
		return h == other
	}
	return slices.Equal(h.Zones, other.Zones) && slices.Equal(h.Nodes, other.Nodes)
}

// Equal tells whether nothing differs.
func (e *Endpoint) Equal(other *Endpoint) bool {
	return e.Address == other.Address && e.Node == other.Node && e.Ready == other.Ready &&
		e.Serving == other.Serving && e.Terminating == other.Terminating && e.Hints.Equal(other.Hints)
}

// Equal tells whether nothing that a plan could see differs.
func (s *EndpointSlice) Equal(other *EndpointSlice) bool {
	return s.SliceKey == other.SliceKey && s.Service == other.Service && s.Family == other.Family &&
		slices.Equal(s.Ports, other.Ports) &&
		slices.EqualFunc(s.Endpoints, other.Endpoints, func(a, b Endpoint) bool { return a.Equal(&b) })
}

// ServiceCIDR is a range that ClusterIPs are given from.
type ServiceCIDR struct {
	Name     string
	Prefixes []netip.Prefix // masked
}

// Equal tells whether nothing differs.
func (c *ServiceCIDR) Equal(other *ServiceCIDR) bool {
	return c.Name == other.Name && slices.Equal(c.Prefixes, other.Prefixes)
}
