package trace

import (
	"net/netip"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

// By is how a packet comes to a node, or how it leaves one.
type By string

// The ways of a packet.
const (
	ByPod   By = "pod"   // over the link of a pod of the node
	ByNode  By = "node"  // made by the node itself
	ByWire  By = "wire"  // over a network that the node is on, as it is
	ByVXLAN By = "vxlan" // in a tunnel
	ByIPIP  By = "ipip"
	ByUDP   By = "udp"
)

// Tunnels tells whether it is a tunnel.
func (b By) Tunnels() bool { return b == ByVXLAN || b == ByIPIP || b == ByUDP }

// Question is what a node is asked: what becomes of the first packet of a
// connection.
type Question struct {
	From     netip.Addr     `json:"from,omitzero"` // invalid: the node itself, which chooses
	To       netip.Addr     `json:"to"`
	Protocol model.Protocol `json:"protocol,omitzero"` // of Port
	Port     uint16         `json:"port,omitzero"`     // of the destination; 0: none, as in a ping
	Enter    Enter          `json:"enter"`
	Backend  netip.AddrPort `json:"backend,omitzero"` // that a Service is to lead it to; invalid: any. Its port may be 0
	Reply    bool           `json:"reply,omitempty"`  // it answers another packet: nothing is translated but back
}

// Enter is how the packet comes to the node.
type Enter struct {
	By     By         `json:"by"`
	MAC    model.MAC  `json:"mac,omitzero"`    // that it is sent to, inside a tunnel if there is one; zero: not known
	At     netip.Addr `json:"at,omitzero"`     // the node's address that it is sent to; outside of a tunnel
	Source netip.Addr `json:"source,omitzero"` // of a tunnel's outer packet
	VNI    uint32     `json:"vni,omitzero"`
	Port   uint16     `json:"port,omitzero"` // of a tunnel over UDP
}

// Answer is what a node says. It only grows: the one who asks may be newer or
// older.
type Answer struct {
	Node   string `json:"node"`
	Kernel Kernel `json:"kernel"`
	Plan   *Plan  `json:"plan,omitempty"`   // nil: the agent did not tell
	Silent string `json:"silent,omitempty"` // why it did not
}

// Kernel is what the kernel of a node does with a packet, as far as it goes.
type Kernel struct {
	In       *Device    `json:"in,omitempty"`      // it comes by; nil: there is none, or the node itself makes it
	Wire     *Device    `json:"wire,omitempty"`    // a tunnel's outer packet comes by; nil: none has its address
	Filter   int        `json:"filter,omitempty"`  // rp_filter in effect on In: 0, 1 (strict) or 2 (loose); IPv4 only
	Back     *Route     `json:"back,omitempty"`    // to the packet's source; nil: none
	Source   netip.Addr `json:"source,omitzero"`   // of the packet, if the node itself makes it, or of its interface, for masquerade
	Local    bool       `json:"local,omitempty"`   // the destination is an address of the node
	Route    *Route     `json:"route,omitempty"`   // that it takes, or that refuses it
	Refused  Refusal    `json:"refused,omitempty"` // why it takes none
	Error    string     `json:"error,omitempty"`   // the kernel's own words for that
	Out      *Device    `json:"out,omitempty"`
	Neighbor *Neighbor  `json:"neighbor,omitempty"` // of the next hop on Out; nil: not known, or not needed
	Remote   netip.Addr `json:"remote,omitzero"`    // the node that Out's tunnel sends it to; invalid: to none
	Outer    *Outer     `json:"outer,omitempty"`    // of a tunnel, if Remote is valid
	Planned  *Device    `json:"planned,omitempty"`  // that the plan sends it through, if it is there and not Out
	Tables   bool       `json:"tables,omitempty"`   // the table of nftables that translates and filters is there
	Droppers []string   `json:"droppers,omitempty"` // chains of other programs that drop some packets, as nft names them
	Legacy   []string   `json:"legacy,omitempty"`   // commands that list tables of iptables-legacy, of which nft does not tell
	Unlisted string     `json:"unlisted,omitempty"` // why Droppers or Legacy are not known

	Service    *Service       `json:"service,omitempty"`   // what its maps have of the destination; nil: nothing
	Translated netip.AddrPort `json:"translated,omitzero"` // where they lead, if there is no plan to compare them with
}

// Refusal is why the kernel does not pass a packet on.
type Refusal string

// The refusals.
const (
	NoRoute      Refusal = "no route"
	Unreachable  Refusal = "unreachable"  // a route says so: Kernel.Route
	NoForwarding Refusal = "forwarding"   // it is turned off
	Filtered     Refusal = "filtered"     // by rp_filter: its source is elsewhere
	OtherReason  Refusal = "other reason" // see the error
)

// Device is a network interface.
type Device struct {
	Name    string     `json:"name"`
	Kind    string     `json:"kind"` // as ip -d link has it: device, veth, vxlan …
	MTU     int        `json:"mtu"`  // bytes
	MAC     model.MAC  `json:"mac,omitzero"`
	Up      bool       `json:"up"`
	Carrier bool       `json:"carrier"`
	NoARP   bool       `json:"noARP,omitempty"` // its next hops need no neighbours
	Alias   string     `json:"alias,omitempty"`
	VNI     uint32     `json:"vni,omitempty"`
	Port    uint16     `json:"port,omitempty"`
	Local   netip.Addr `json:"local,omitzero"`   // outer source of a tunnel
	Parent  string     `json:"parent,omitempty"` // carries it
	Peer    *Device    `json:"peer,omitempty"`   // the pod's side of a pod's link; nil: not known
}

// Tunnel is how a packet travels that leaves through the device: ByWire if it
// is no tunnel between nodes that the cluster's network has made, whatever its
// kind. What another's tunnel leads to is no node, as far as anybody knows.
func (d *Device) Tunnel() By {
	beside := strings.HasPrefix(d.Name, route.FlannelPrefix) // while a cluster moves from flannel
	switch {
	case d.Kind == "vxlan" && (beside || strings.HasPrefix(d.Name, route.VXLANPrefix)):
		return ByVXLAN
	case d.Kind == "ipip" && beside, d.Name == ipipDevice: // the latter may be a pair with programs
		return ByIPIP
	case d.Name == udpDevice:
		return ByUDP
	default:
		return ByWire
	}
}

// Route is a route as it is in the kernel.
type Route struct {
	Type        string       `json:"type,omitempty"` // empty: unicast
	Destination netip.Prefix `json:"destination"`
	Device      string       `json:"device,omitempty"`
	Via         netip.Addr   `json:"via,omitzero"`
	MTU         int          `json:"mtu,omitempty"` // bytes; 0: the device's
	Protocol    string       `json:"protocol,omitempty"`
	Table       int          `json:"table,omitempty"`
}

// Neighbor is an entry of ARP or neighbour discovery.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	MAC     model.MAC  `json:"mac,omitzero"`
	State   string     `json:"state"` // as ip neighbor has it: permanent, reachable, failed …
}

// Outer is what becomes of the packet around the packet.
type Outer struct {
	Source   netip.Addr `json:"source,omitzero"`
	Route    *Route     `json:"route,omitempty"`
	Refused  Refusal    `json:"refused,omitempty"`
	Error    string     `json:"error,omitempty"`
	Out      *Device    `json:"out,omitempty"`
	Neighbor *Neighbor  `json:"neighbor,omitempty"`
}

// Plan is what the plan of a node says of a packet.
type Plan struct {
	From       string            `json:"from,omitempty"`      // the pod that it comes from, NAMESPACE/NAME; empty: of this node is none
	To         string            `json:"to,omitempty"`        // the pod that it goes to, likewise
	In         string            `json:"in,omitempty"`        // the device that it comes by; empty: nothing is said
	InTunnel   *Device           `json:"inTunnel,omitempty"`  // what that is like
	Spoofed    bool              `json:"spoofed,omitempty"`   // the pod may not send it
	Denied     *Denied           `json:"denied,omitempty"`    // policies forbid the connection
	PodMAC     model.MAC         `json:"podMAC,omitzero"`     // that the pod may send from
	Refused    bool              `json:"refused,omitempty"`   // an unreachable route refuses it
	Route      netip.Prefix      `json:"route,omitzero"`      // invalid: no route of ours
	Device     string            `json:"device,omitempty"`    // empty: the node's other routes decide
	Via        netip.Addr        `json:"via,omitzero"`        //
	MTU        int               `json:"mtu,omitempty"`       // bytes; 0: the device's
	MAC        model.MAC         `json:"mac,omitzero"`        // of the next hop; zero: the kernel finds out
	Remote     netip.Addr        `json:"remote,omitzero"`     // the node that the tunnel leads to
	Tunnel     *Device           `json:"tunnel,omitempty"`    // what Device is like
	Translated netip.AddrPort    `json:"translated,omitzero"` // the node's port or the Service leads here
	Masquerade bool              `json:"masquerade,omitempty"`
	As         netip.Addr        `json:"as,omitzero"`       // invalid: the address of the interface
	Service    *Service          `json:"service,omitempty"` // that the destination is of; Translated is where that leads
	Here       bool              `json:"here,omitempty"`    // the node's own DNS server answers it, and no Service is asked
	Sysctls    map[string]string `json:"sysctls,omitempty"` // wanted, of those that matter here
}
