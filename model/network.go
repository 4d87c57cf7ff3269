package model

// Network is the cluster's configuration: the spec of the Network object named
// default, or DefaultNetwork without one.
type Network struct {
	Backend       Backend
	DirectRouting bool   // plain routes to nodes that are on-link, whatever the backend
	MTU           int    // bytes of the links between nodes; 0 means that of the uplink
	VXLANVNI      uint32 // 1 to 1<<24 - 1
	VXLANPort     uint16 // UDP port, on every node
	Masquerade    bool   // pods leave the cluster with their node's address
}

// Backend is the way between nodes that are not on-link.
type Backend string

// BackendVXLAN is a VXLAN tunnel of the kernel (RFC 7348).
const BackendVXLAN Backend = "vxlan"

// DefaultNetwork is the configuration of a cluster that says nothing. 4789 is
// IANA's port for VXLAN; Linux' own default differs for historical reasons.
func DefaultNetwork() *Network {
	return &Network{
		Backend:       BackendVXLAN,
		DirectRouting: true,
		VXLANVNI:      4096,
		VXLANPort:     4789,
		Masquerade:    true,
	}
}
