package model

import (
	"net/netip"
	"slices"
)

// Name is a Service of which there is nothing to know but its name: a headless
// one, one of type ExternalName, or one that another program serves (label
// service.kubernetes.io/service-proxy-name). All others are in a Snapshot's
// Services, and have a name, too.
type Name struct {
	ServiceKey
	ClusterIPs []netip.Addr // none: headless, or ExternalName
	External   string       // of type ExternalName: the name that it stands for, without a dot at the end
	// Ports are those that it declares. A headless one need not have any, and what its
	// endpoints have is what counts; of an ExternalName they are no more than names.
	Ports []ServicePort
}

// Equal tells whether nothing differs.
func (n *Name) Equal(other *Name) bool {
	return n.ServiceKey == other.ServiceKey && n.External == other.External &&
		slices.Equal(n.ClusterIPs, other.ClusterIPs) && slices.Equal(n.Ports, other.Ports)
}

// Hosts are some of the endpoints of a headless Service, in one family: an
// EndpointSlice, with what a name needs of it.
type Hosts struct {
	SliceKey
	Service string // of the same namespace
	Ports   []EndpointPort
	Hosts   []Host // those that are ready
}

// Host is one endpoint of a headless Service.
type Host struct {
	Address  netip.Addr
	Hostname string // its label below the Service; empty: none
}

// Equal tells whether nothing differs.
func (h *Hosts) Equal(other *Hosts) bool {
	return h.SliceKey == other.SliceKey && h.Service == other.Service &&
		slices.Equal(h.Ports, other.Ports) && slices.Equal(h.Hosts, other.Hosts)
}

// NameServer is what the agent of a node knows of the DNS server there.
type NameServer uint8

// What it may be.
const (
	NameServerUnknown NameServer = iota // it was not asked yet
	NameServerAbsent                    // nobody listens
	NameServerWell                      // it answers
	NameServerHung                      // it listens, and does not answer
)

func (s NameServer) String() string {
	return [...]string{"unknown", "absent", "well", "hung"}[s]
}
