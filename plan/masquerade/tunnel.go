package masquerade

import (
	"slices"

	"github.com/fairlead-net/fairlead/model"
)

// Tunnels are the UDP ports of the nodes' tunnels in user space, ascending,
// with 0 in the places that are left over. A tunnel takes what has the address
// and such a port of a node for that node's word. A pod's packet to another
// node has the one, and must not have the other.
type Tunnels [3]uint16

// tunnels are those in use, those of before and those to come. All of them are
// listened to.
func tunnels(snapshot *model.Snapshot) (ports Tunnels) {
	var found []uint16
	for _, routing := range []*model.Routing{&snapshot.Network.Routing, snapshot.Former, snapshot.Coming} {
		if routing != nil && routing.Backend == model.BackendUDP {
			found = append(found, routing.UDPPort)
		}
	}
	slices.Sort(found)
	copy(ports[:], slices.Compact(found))
	return ports
}

// Has tells whether a port is one of a tunnel.
func (t Tunnels) Has(port uint16) bool { return port != 0 && slices.Contains(t[:], port) }

// Others is the widest range of ports that holds none of a tunnel and none
// that is privileged (RFC 6335 section 6): from first to last, thousands.
func (t Tunnels) Others() (first, last uint16) {
	const unprivileged, all = 1024, 1 << 16
	from, widest := unprivileged, 0
	for _, port := range append(t[:], 0) {
		end := int(port)
		if port == 0 {
			end = all
		}
		if end-from > widest {
			first, last, widest = uint16(from), uint16(end-1), end-from
		}
		from = max(from, end+1)
	}
	return first, last
}
