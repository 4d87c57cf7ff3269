package netlink

import (
	"encoding/binary"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"syscall"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/plan/route"
)

// suspect is what has changed by someone's hand: a key of a delta.
type suspect struct{ delta, key any }

// suspicion is a suspect that is no key of a delta, by its name.
func (p *Plane) suspicion(name string, still func() bool) {
	if p.suspects == nil {
		p.suspects = map[suspect]func() bool{}
	}
	if _, ok := p.suspects[suspect{key: name}]; !ok {
		p.suspects[suspect{key: name}] = still
	}
}

// note takes into a delta what a notification says of a key. In the end only
// what differs both from what was known and from what should be is a
// disturbance: what we were refused, or made and took back, is none.
func note[K, V comparable](p *Plane, d *dataplane.Delta[K, V], key K, value V, there bool) {
	have, had := d.Actual(key)
	if had == there && (!there || have == value) {
		return
	}
	if there {
		d.Did(key, value)
	} else {
		d.Removed(key)
	}
	if p.suspects == nil {
		p.suspects = map[suspect]func() bool{}
	}
	if _, ok := p.suspects[suspect{d, key}]; ok {
		return // it is the first look that tells what was known
	}
	p.suspects[suspect{d, key}] = func() bool {
		now, is := d.Actual(key)
		return d.Differs(key) && (is != had || now != have)
	}
}

// see takes in one notification.
func (p *Plane) see(message syscall.NetlinkMessage) {
	switch data := message.Data; message.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		p.seeLink(message)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		p.seeRoute(data, message.Header.Type == unix.RTM_NEWROUTE, message.Header.Flags&unix.NLM_F_REPLACE != 0)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		p.seeNeighbor(data, message.Header.Type == unix.RTM_NEWNEIGH)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		p.seeAddress(data, message.Header.Type == unix.RTM_NEWADDR)
	case unix.RTM_NEWNETCONF:
		p.seeSetting(data)
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_DELQDISC:
		if _, ok := p.ipips.Wanted(route.IPIPDevice); ok {
			p.suspectIPIP()
		}
	}
}

func (p *Plane) seeLink(message syscall.NetlinkMessage) {
	// A bridge speaks of its ports in the same words.
	if len(message.Data) < unix.SizeofIfInfomsg || message.Data[0] == unix.AF_BRIDGE {
		return
	}
	link, err := rtnl.LinkDeserialize((*unix.NlMsghdr)(&message.Header), message.Data)
	if err != nil {
		return
	}
	info := nl.DeserializeIfInfomsg(message.Data)
	name, index := link.Attrs().Name, link.Attrs().Index
	if old, ok := p.names[index]; ok && (old != name || message.Header.Type == unix.RTM_DELLINK) {
		p.deviceGone(old)
		delete(p.names, index)
	}
	if message.Header.Type == unix.RTM_DELLINK {
		return
	}
	p.names[index] = name
	up := info.Flags&unix.IFF_UP != 0
	// Of a new device, all counts as changed.
	if changed := info.Change != ^uint32(0) && info.Change&unix.IFF_UP != 0; changed && !up {
		p.routesGone(name)
	} else if changed && p.routes.Pending() > 0 {
		p.suspicion("up "+name, func() bool { return p.routes.Pending() > 0 })
	}
	switch {
	case strings.HasPrefix(name, route.VXLANPrefix):
		p.noteVXLAN(name, seenVXLAN(link, p.names), true)
	case strings.HasPrefix(name, route.IPIPDevice): // and its other end
		p.suspectIPIP()
	case name == route.UDPDevice:
		p.suspectUDP()
	}
}

// routesGone: with a device that is down or gone, the kernel drops its routes,
// those of IPv4 without a word.
func (p *Plane) routesGone(device string) {
	for destination, r := range p.routes.All() {
		if r.Device == device {
			note(p, &p.routes, destination, route.Route{}, false)
		}
	}
}

func (p *Plane) deviceGone(name string) {
	p.routesGone(name)
	switch {
	case strings.HasPrefix(name, route.VXLANPrefix):
		p.noteVXLAN(name, route.VXLAN{}, false)
	case strings.HasPrefix(name, route.IPIPDevice):
		p.suspectIPIP()
	case name == route.UDPDevice:
		p.suspectUDP()
	}
}

// noteVXLAN makes all be read back if in the end the device differs: with a
// device goes, perhaps, what is on it.
func (p *Plane) noteVXLAN(name string, seen route.VXLAN, there bool) {
	note(p, &p.vxlans, name, seen, there)
	p.suspicion("link "+name, func() bool {
		if !p.vxlans.Differs(name) {
			return false
		}
		p.known = false
		return false // note has said so, if it was not known before
	})
}

func (p *Plane) suspectIPIP() { p.suspicion("ipip", func() bool { return false }) }
func (p *Plane) suspectUDP()  { p.suspicion("udp", func() bool { return false }) }

// settleDevices looks at the devices that notifications do not describe whole:
// once, however many there were.
func (p *Plane) settleDevices() {
	if _, ok := p.suspects[suspect{key: "ipip"}]; ok {
		p.settleIPIP()
	}
	if _, ok := p.suspects[suspect{key: "udp"}]; ok {
		p.settleUDP()
	}
}

func (p *Plane) settleIPIP() {
	var seen route.IPIP
	link, err := p.handle.LinkByName(route.IPIPDevice)
	there := err == nil
	if there {
		seen, err = p.seenIPIP(link)
	}
	if err != nil && there {
		p.known = false
		return
	}
	note(p, &p.ipips, route.IPIPDevice, seen, there)
	if p.ipips.Differs(route.IPIPDevice) {
		p.known = false
	}
}

// settleUDP is about a device that servers/udptunnel makes: it has no ears of
// its own.
func (p *Plane) settleUDP() {
	want, ok := p.udps.Get(route.UDPDevice)
	if !ok {
		return
	}
	link, err := p.handle.LinkByName(route.UDPDevice)
	if err != nil || link.Attrs().MTU != want.MTU || link.Attrs().RawFlags&unix.IFF_UP == 0 {
		p.suspects[suspect{key: "udp"}] = func() bool { return true }
	}
}

func (p *Plane) seeRoute(data []byte, added, replaced bool) {
	entry, ok := readRoute(data)
	if !ok || !ourForm(&entry) {
		return
	}
	destination := prefixOf(entry.Dst)
	ours := entry.Protocol == Protocol
	switch {
	case ours && added:
		note(p, &p.routes, destination, seenRoute(&entry, p.names), true)
	case ours:
		note(p, &p.routes, destination, route.Route{}, false)
	case added && replaced: // perhaps ours, by another's
		note(p, &p.routes, destination, route.Route{}, false)
	case !added: // what was in the way is not any more
		if _, there := p.routes.Actual(destination); !there && p.routes.Differs(destination) {
			p.suspicion("route "+destination.String(), func() bool { return p.routes.Differs(destination) })
		}
	}
}

const nextHopID = 30 // RTA_NH_ID (linux/rtnetlink.h)

// readRoute reads of a notification what tells our routes apart.
func readRoute(data []byte) (rtnl.Route, bool) {
	if len(data) < unix.SizeofRtMsg {
		return rtnl.Route{}, false
	}
	head := nl.DeserializeRtMsg(data)
	attributes, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil || head.Flags&unix.RTM_F_CLONED != 0 || head.Family != unix.AF_INET && head.Family != unix.AF_INET6 {
		return rtnl.Route{}, false
	}
	entry := rtnl.Route{
		Protocol: rtnl.RouteProtocol(head.Protocol), Table: int(head.Table),
		Type: int(head.Type), Tos: int(head.Tos), Flags: int(head.Flags),
	}
	for _, attribute := range attributes {
		switch value := attribute.Value; attribute.Attr.Type {
		case unix.RTA_DST:
			addr, _ := netip.AddrFromSlice(value)
			entry.Dst = ipNet(netip.PrefixFrom(addr, int(head.Dst_len)))
		case unix.RTA_GATEWAY:
			entry.Gw = value
		case unix.RTA_PREFSRC:
			entry.Src = value
		case unix.RTA_OIF:
			entry.LinkIndex = number(value)
		case unix.RTA_PRIORITY:
			entry.Priority = number(value)
		case unix.RTA_TABLE:
			entry.Table = number(value)
		case unix.RTA_METRICS:
			entry.MTU = mtuOf(value)
		case unix.RTA_MULTIPATH, unix.RTA_ENCAP, nextHopID:
			entry.MultiPath = []*rtnl.NexthopInfo{{}} // not as we write them
		}
	}
	return entry, entry.Dst != nil
}

func mtuOf(metrics []byte) int {
	nested, err := nl.ParseRouteAttr(metrics)
	if err != nil {
		return 0
	}
	for _, metric := range nested {
		if metric.Attr.Type == unix.RTAX_MTU {
			return number(metric.Value)
		}
	}
	return 0
}

// number reads 32 bits; what is too short is 0.
func number(value []byte) int {
	if len(value) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}

// seeNeighbor is also about forwarding entries.
func (p *Plane) seeNeighbor(data []byte, added bool) {
	const header = 12 // struct ndmsg: family, padding, index, …
	if len(data) < header {
		return
	}
	device := p.names[number(data[4:])]
	if !strings.HasPrefix(device, route.TunnelPrefix) {
		return
	}
	entry, err := rtnl.NeighDeserialize(data)
	if err != nil {
		return
	}
	mac, hasMAC := macOf(entry.HardwareAddr)
	if entry.Family == unix.AF_BRIDGE {
		// Before Linux 6.13 the kernel tells of each change by a program twice, the
		// second time without where the station is (rtnl_fdb_notify).
		if hasMAC && entry.IP != nil {
			note(p, &p.fdb, route.Station{Device: device, MAC: mac}, addrOf(entry.IP), added)
		}
		return
	}
	// The kernel's ipip device has entries of its own: see needsNoNeighbor.
	if device == route.IPIPDevice && !hasMAC {
		if link, err := p.handle.LinkByName(device); err == nil && link.Type() != "veth" {
			return
		}
	}
	there := added && hasMAC && entry.State&rtnl.NUD_PERMANENT != 0
	note(p, &p.neighbors, route.Neighbor{Device: device, Address: addrOf(entry.IP)}, mac, there)
}

func (p *Plane) seeAddress(data []byte, added bool) {
	if len(data) < unix.SizeofIfAddrmsg {
		return
	}
	head := nl.DeserializeIfAddrmsg(data)
	attributes, err := nl.ParseRouteAttr(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return
	}
	var addr netip.Addr
	for _, attribute := range attributes {
		// Of IPv4, IFA_ADDRESS may be the other end's.
		if attribute.Attr.Type == unix.IFA_LOCAL || attribute.Attr.Type == unix.IFA_ADDRESS && !addr.IsValid() {
			addr = addrOf(attribute.Value)
		}
	}
	if !addr.IsValid() {
		return
	}
	if device := p.names[int(head.Index)]; strings.HasPrefix(device, route.TunnelPrefix) && !addr.IsLinkLocalUnicast() {
		prefix := netip.PrefixFrom(addr, int(head.Prefixlen))
		note(p, &p.addresses, route.Address{Device: device, Prefix: prefix}, struct{}{}, added)
	}
	if !added {
		p.addressGone(addr, p.names[int(head.Index)])
	}
}

// addressGone: with an address, the kernel drops the routes whose source it is,
// or their source, unless another interface has it too; and with the last one of
// IPv4 on an interface all routes of IPv4 there. It says nothing of either.
func (p *Plane) addressGone(addr netip.Addr, device string) {
	for destination, r := range p.routes.All() {
		if r.Source == addr || r.Device == device && addr.Is4() && destination.Addr().Is4() {
			p.suspicion("address "+addr.String(), func() bool {
				p.known = false
				return true
			})
			return
		}
	}
}

// seeSetting is about the settings that the kernel notifies of: forwarding and
// reverse path filters.
func (p *Plane) seeSetting(data []byte) {
	const (
		header                      = 4       // struct netconfmsg, padded
		index, forwarding, rpFilter = 1, 2, 3 // linux/netconf.h
		allDevices                  = ^uint32(0)
	)
	if len(data) < header {
		return
	}
	attributes, err := nl.ParseRouteAttr(data[header:])
	if err != nil {
		return
	}
	values := map[uint16]int{}
	for _, attribute := range attributes {
		values[attribute.Attr.Type] = number(attribute.Value)
	}
	var key string
	for kind := range values {
		switch {
		case kind == forwarding && uint32(values[index]) == allDevices && data[0] == unix.AF_INET:
			key = "net/ipv4/ip_forward"
		case kind == forwarding && uint32(values[index]) == allDevices:
			key = "net/ipv6/conf/all/forwarding"
		case kind == rpFilter && p.names[values[index]] != "":
			key = path.Join("net/ipv4/conf", p.names[values[index]], "rp_filter")
		default:
			continue
		}
		if _, ok := p.sysctls.Wanted(key); ok {
			note(p, &p.sysctls, key, strconv.Itoa(int(int32(values[kind]))), true)
		}
	}
}
