package netlink

import (
	"net"
	"net/netip"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/route"
)

func neighborItem() item[route.Neighbor, model.MAC] {
	return item[route.Neighbor, model.MAC]{
		named: func(n route.Neighbor) string { return "neighbor " + n.Address.String() },
		asked: func(n route.Neighbor, mac model.MAC) string {
			return "neighbor " + n.Address.String() + " lladdr " + mac.String() + " dev " + n.Device
		},
	}
}

func stationItem() item[route.Station, netip.Addr] {
	return item[route.Station, netip.Addr]{
		named: func(s route.Station) string { return "fdb " + s.MAC.String() },
		asked: func(s route.Station, remote netip.Addr) string {
			return "fdb " + s.MAC.String() + " dst " + remote.String() + " dev " + s.Device
		},
	}
}

func (b *batch) putNeighbors() error {
	return put(b, &b.neighbors, neighborItem(), func(n route.Neighbor, mac model.MAC) error {
		if b.needsNoNeighbor(n) {
			return nil
		}
		entry, err := b.neighbor(n, mac)
		if err != nil {
			return err
		}
		return b.handle.NeighSet(entry)
	})
}

func (b *batch) removeNeighbors() error {
	return remove(b, &b.neighbors, neighborItem(), func(n route.Neighbor, mac model.MAC) error {
		if b.needsNoNeighbor(n) {
			return nil
		}
		entry, err := b.neighbor(n, mac)
		if err != nil {
			return err
		}
		return b.handle.NeighDel(entry)
	})
}

// needsNoNeighbor: the kernel's ipip device is told the outer destination by the
// route.
func (b *batch) needsNoNeighbor(n route.Neighbor) bool {
	return n.Device == route.IPIPDevice && !b.programmed(n.Device)
}

func (b *batch) putFDB() error {
	return put(b, &b.fdb, stationItem(), func(s route.Station, remote netip.Addr) error {
		entry, err := b.station(s, remote)
		if err != nil {
			return err
		}
		return b.handle.NeighSet(entry)
	})
}

func (b *batch) removeFDB() error {
	return remove(b, &b.fdb, stationItem(), func(s route.Station, remote netip.Addr) error {
		entry, err := b.station(s, remote)
		if err != nil {
			return err
		}
		return b.handle.NeighDel(entry)
	})
}

func (b *batch) neighbor(n route.Neighbor, mac model.MAC) (*rtnl.Neigh, error) {
	index, err := b.index(n.Device)
	if err != nil {
		return nil, err
	}
	return &rtnl.Neigh{
		LinkIndex:    index,
		State:        rtnl.NUD_PERMANENT,
		IP:           n.Address.AsSlice(),
		HardwareAddr: mac[:],
	}, nil
}

func (b *batch) station(s route.Station, remote netip.Addr) (*rtnl.Neigh, error) {
	index, err := b.index(s.Device)
	if err != nil {
		return nil, err
	}
	return &rtnl.Neigh{
		LinkIndex:    index,
		Family:       unix.AF_BRIDGE,
		State:        rtnl.NUD_PERMANENT,
		Flags:        rtnl.NTF_SELF,
		IP:           remote.AsSlice(),
		HardwareAddr: s.MAC[:],
	}, nil
}

// observeNeighbors reads back the permanent neighbours and the forwarding
// entries of our devices. What the kernel resolved itself it also forgets
// itself.
func (b *batch) observeNeighbors(ours map[int]string) error {
	neighbors := map[route.Neighbor]model.MAC{}
	stations := map[route.Station]netip.Addr{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		var entries []rtnl.Neigh
		err := dump("neighbours", func() (err error) {
			entries, err = b.handle.NeighList(0, family)
			return err
		})
		if err != nil {
			return err
		}
		for _, entry := range entries {
			device, isOurs := ours[entry.LinkIndex]
			mac, hasMAC := macOf(entry.HardwareAddr)
			switch {
			case !isOurs || !hasMAC:
			case family == unix.AF_BRIDGE:
				stations[route.Station{Device: device, MAC: mac}] = addrOf(entry.IP)
			case entry.State&rtnl.NUD_PERMANENT != 0:
				neighbors[route.Neighbor{Device: device, Address: addrOf(entry.IP)}] = mac
			}
		}
	}
	b.neighbors.Observe(neighbors)
	b.fdb.Observe(stations)
	return nil
}

func macOf(addr net.HardwareAddr) (model.MAC, bool) {
	if len(addr) != len(model.MAC{}) {
		return model.MAC{}, false
	}
	return model.MAC(addr), true
}
