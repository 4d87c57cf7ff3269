package model

import (
	"net/netip"
	"slices"
)

// Network is the cluster's configuration: the spec of the Network object named
// default, or DefaultNetwork without one.
type Network struct {
	Routing
	Masquerade Masquerade
	Services   Services
	Policy     PolicyOptions
	DNS        DNSOptions
	Ingress    IngressOptions
	// Plugins are those that follow Fairlead's in the CNI chain of every node,
	// each a JSON object with its type.
	Plugins []string
	// ForeignFirewall is what is done about other programs' chains that drop the
	// packets of pods.
	ForeignFirewall ForeignFirewall
}

// Equal tells whether nothing differs.
func (n *Network) Equal(other *Network) bool {
	return n.Routing == other.Routing && n.Masquerade.Equal(&other.Masquerade) && n.Services.Equal(&other.Services) && n.Policy == other.Policy && n.DNS.Equal(&other.DNS) &&
		n.Ingress.Equal(&other.Ingress) &&
		slices.Equal(n.Plugins, other.Plugins) && n.ForeignFirewall == other.ForeignFirewall
}

// Routing says how packets get from node to node.
type Routing struct {
	Backend       Backend
	DirectRouting bool   // plain routes to nodes that are on-link, whatever the backend
	MTU           int    // bytes of the links between nodes; 0 means that of the uplink
	VXLANVNI      uint32 // 1 to 1<<24 - 1
	VXLANPort     uint16 // UDP port, on every node
	UDPPort       uint16 // of backend udp, on every node
}

// Backend is the way between nodes that are not on-link.
type Backend string

// The backends.
const (
	BackendVXLAN  Backend = "vxlan"   // a tunnel of the kernel (RFC 7348)
	BackendHostGW Backend = "host-gw" // none: all nodes are on-link, and plain routes do
	BackendIPIP   Backend = "ipip"    // IPv4 in IPv4 (RFC 2003); IPv6 goes through VXLAN
	BackendUDP    Backend = "udp"     // a tunnel in user space
)

// Backends are all of them, the default first.
var Backends = [...]Backend{BackendVXLAN, BackendHostGW, BackendIPIP, BackendUDP}

// Masquerade says which packets of pods leave with an address of their node.
type Masquerade struct {
	On          [len(Families)]bool // by family
	Exclude     []netip.Prefix      // destinations outside of the cluster that see pods' own addresses
	From        []netip.Prefix      // the node's address is the first in these; empty: that of the interface it leaves by
	RandomPorts bool                // else the pod's port is kept if it is free
}

// Equal tells whether nothing differs.
func (m *Masquerade) Equal(other *Masquerade) bool {
	return m.On == other.On && m.RandomPorts == other.RandomPorts &&
		slices.Equal(m.Exclude, other.Exclude) && slices.Equal(m.From, other.From)
}

// Services says where node ports are, and who calls ClusterIPs with an address
// of a node. The zero value is the default.
type Services struct {
	// NodePortAddresses are the networks in which the node's own addresses have
	// node ports. Of a family without any, its first InternalIP has them.
	NodePortAddresses  []netip.Prefix
	LocalhostNodePorts bool // the node itself reaches them at 127.0.0.1, too
	MasqueradeAll      bool // packets to ClusterIPs take an address of the node, whoever sends them
}

// Equal tells whether nothing differs.
func (s *Services) Equal(other *Services) bool {
	return s.LocalhostNodePorts == other.LocalhostNodePorts && s.MasqueradeAll == other.MasqueradeAll &&
		slices.Equal(s.NodePortAddresses, other.NodePortAddresses)
}

// PolicyOptions say how policies are carried out. The zero value is the
// default.
type PolicyOptions struct {
	// CutEstablished ends connections that a changed policy forbids; else only new
	// ones are.
	CutEstablished bool
}

// DefaultNetwork is the configuration of a cluster that says nothing. 4789 is
// IANA's port for VXLAN; Linux' own default differs for historical reasons.
func DefaultNetwork() *Network {
	return &Network{
		Routing: Routing{
			Backend:       BackendVXLAN,
			DirectRouting: true,
			VXLANVNI:      4096,
			VXLANPort:     4789,
			UDPPort:       8285,
		},
		Masquerade: Masquerade{On: [...]bool{IPv4: true, IPv6: true}, RandomPorts: true},
		DNS:        DefaultDNS(),

		ForeignFirewall: AcceptInForeign,
	}
}
