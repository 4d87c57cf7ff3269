package model

import "net/netip"

// ProbeEndpoint is the attachment of the probe endpoint of a node: no container
// has such an ID. It is no pod, and no policy speaks of it.
var ProbeEndpoint = AttachmentKey{ContainerID: "fairlead-probe", Interface: "eth0"}

// ProbeAddress is the address of the probe endpoint in a range of pods: the last
// but one, so that every node knows those of all others without being told. It
// is invalid if the range has fewer than eight addresses.
func ProbeAddress(prefix netip.Prefix) netip.Addr {
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 3 {
		return netip.Addr{}
	}
	raw := prefix.Masked().Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(raw)*8-1; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}

// ProbeAddress returns that of the node in a family; invalid if it has none.
func (n *Node) ProbeAddress(family Family) netip.Addr { return ProbeAddress(n.PodCIDR(family)) }
