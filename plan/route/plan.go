package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Plan is what one node's kernel should hold for routing. It is immutable.
type Plan struct {
	VXLANs    model.Map[string, VXLAN] // by device name
	IPIPs     model.Map[string, IPIP]  // by device name
	UDPs      model.Map[string, UDP]   // by device name
	Addresses model.Map[Address, struct{}]
	Routes    model.Map[netip.Prefix, Route] // by destination
	Neighbors model.Map[Neighbor, model.MAC]
	FDB       model.Map[Station, netip.Addr]      // value: the node behind which the MAC is
	UDPPeers  model.Map[netip.Prefix, netip.Addr] // who may send through a UDP tunnel, and where what goes: see UDP
	Sysctls   model.Map[string, string]           // by path below /proc/sys, such as net/ipv4/ip_forward
	Ways      model.Map[string, Way]              // by the name of the other node
	Yields    model.Map[netip.Prefix, struct{}]   // destinations of Routes to which a route of another's goes first: see flannel.go

	// What the next plan is made from.
	input       input
	segments    []netip.Prefix // networks of this node's links, which no range of pods may touch
	clusterIPs  []netip.Prefix // ranges of ClusterIPs
	nodes       model.Map[string, *model.Node]
	attachments model.Map[model.AttachmentKey, *model.Attachment]
	claims      claims[netip.Prefix]
	addresses   claims[netip.Addr]
	stations    [len(model.Families)]int               // in the FDB, by family of the outer packets
	stranded    model.Map[string, *model.Node]         // peers that no route leads to: see hostgw.go
	collisions  model.Map[netip.Prefix, model.Problem] // ranges of peers that are not routed
}

// Way is how packets reach another node.
type Way uint8

// The ways. Of a node whose families differ in their way, the greater counts.
const (
	Direct Way = iota + 1
	ViaVXLAN
	ViaIPIP
	ViaUDP
)

func (w Way) String() string {
	switch w {
	case Direct:
		return "direct"
	case ViaVXLAN:
		return "vxlan"
	case ViaIPIP:
		return "ipip"
	case ViaUDP:
		return "udp"
	default:
		return "none"
	}
}

// VXLAN is a tunnel device. It learns nothing: every station is in the FDB.
type VXLAN struct {
	Name   string
	VNI    uint32
	Port   uint16     // UDP, here and at every peer
	Device string     // the uplink that carries it
	Local  netip.Addr // outer source address
	MTU    int        // bytes
	MAC    model.MAC
}

// IPIP is a tunnel device for IPv4 in IPv4 (RFC 2003). The next hop of a route
// through it is the outer destination.
type IPIP struct {
	Name   string
	Device string       // the uplink that carries it
	Local  netip.Addr   // outer source address
	MTU    int          // bytes
	Pods   netip.Prefix // this node's range; invalid if it has none
}

// UDP is a tunnel device whose packets are carried in user space: to the
// address that Plan.UDPPeers has for the longest prefix of the destination, and
// from peers only with a source in a prefix of theirs.
type UDP struct {
	Name      string
	Locals    [len(model.Families)]netip.Addr // outer source addresses, by family; invalid: none
	Port      uint16                          // here and at every peer
	OtherPort uint16                          // packets come to this one and from it, too; 0: none
	MTU       int                             // bytes
}

// Address is an address on one of our own devices.
type Address struct {
	Device string
	Prefix netip.Prefix
}

// Route is the way to a destination that is its key.
type Route struct {
	Unreachable bool // packets are refused; the other fields are zero
	Local       bool // the destination is an address of the node itself; Device is that of loopback

	Device string
	Via    netip.Addr // next hop; invalid if the destination is on the link itself
	OnLink bool       // the next hop is on the link although no address says so
	Source netip.Addr // for packets of the node itself; invalid: the kernel chooses
	MTU    int        // bytes; 0: the device's
}

// Neighbor is a permanent ARP or neighbour entry that is its MAC's key.
type Neighbor struct {
	Device  string
	Address netip.Addr
}

// Station is a MAC behind a tunnel device (a bridge FDB entry).
type Station struct {
	Device string
	MAC    model.MAC
}
