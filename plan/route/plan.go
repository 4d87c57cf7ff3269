package route

import (
	"net/netip"

	"github.com/fairlead-net/fairlead/model"
)

// Plan is what one node's kernel should hold for routing. It is immutable.
type Plan struct {
	VXLANs    model.Map[string, VXLAN] // by device name
	Addresses model.Map[Address, struct{}]
	Routes    model.Map[netip.Prefix, Route] // by destination
	Neighbors model.Map[Neighbor, model.MAC]
	FDB       model.Map[Station, netip.Addr] // value: the node behind which the MAC is
	Sysctls   model.Map[string, string]      // by path below /proc/sys, such as net/ipv4/ip_forward
	Ways      model.Map[string, Way]         // by the name of the other node

	// What the next plan is made from.
	input       input
	nodes       model.Map[string, *model.Node]
	attachments model.Map[model.AttachmentKey, *model.Attachment]
	claims      model.Map[netip.Prefix, *claim]
	stations    [len(model.Families)]int // in the FDB, by family of the outer packets
}

// Way is how packets reach another node.
type Way uint8

// The ways. A node whose families differ in their way is tunnelled.
const (
	Direct Way = iota + 1
	Tunnel
)

func (w Way) String() string {
	switch w {
	case Direct:
		return "direct"
	case Tunnel:
		return "tunnel"
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

// Address is an address on one of our own devices.
type Address struct {
	Device string
	Prefix netip.Prefix
}

// Route is the way to a destination that is its key.
type Route struct {
	Unreachable bool // packets are refused; the other fields are zero

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
