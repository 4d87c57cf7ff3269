package hop

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	rtnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// enter finds the interface that a packet comes by.
func (r *reader) enter(q trace.Question) *trace.Device {
	var nearest rtnl.Link
	for _, link := range r.links {
		if r.receives(link, q) && (nearest == nil || nearness(link, q) > nearness(nearest, q)) {
			nearest = link
		}
	}
	if nearest == nil {
		return nil
	}
	return r.device(nearest)
}

// nearness orders interfaces that may receive the same, as the kernel does
// (ip_tunnel_lookup): one that is down receives nothing, and one of any address, such as
// tunl0, which each namespace has where the module ipip is loaded, what is left.
func nearness(link rtnl.Link, q trace.Question) (n int) {
	if link.Attrs().Flags&net.FlagUp != 0 {
		n += 2
	}
	if tunnel, ok := link.(*rtnl.Iptun); !ok || addrOf(tunnel.Local) == q.Enter.At {
		n++
	}
	return n
}

func (r *reader) receives(link rtnl.Link, q trace.Question) bool {
	switch attrs := link.Attrs(); q.Enter.By {
	case trace.ByPod:
		return attrs.Group == model.PodGroup && slices.Contains(podAddresses(attrs.Alias), q.From)
	case trace.ByVXLAN:
		device, ok := link.(*rtnl.Vxlan)
		// Outer packets of each family come to a device of their own.
		return ok && uint32(device.VxlanId) == q.Enter.VNI && uint16(device.Port) == q.Enter.Port &&
			(len(device.SrcAddr) == 0 || addrOf(device.SrcAddr).Is4() == q.Enter.At.Is4())
	case trace.ByIPIP:
		tunnel, ok := link.(*rtnl.Iptun) // the kernel asks for no name
		return (ok || deviceOf(link).Tunnel() == trace.ByIPIP) && (!ok || len(tunnel.Local) == 0 || tunnel.Local.IsUnspecified() || addrOf(tunnel.Local) == q.Enter.At)
	case trace.ByUDP:
		return deviceOf(link).Tunnel() == trace.ByUDP
	case trace.ByWire:
		return r.holds(link, q.Enter.At)
	}
	return false
}

// podAddresses are in the alias of a pod's link, which the agent gives it:
// "fairlead CONTAINER INTERFACE ADDRESS,ADDRESS …".
func podAddresses(alias string) (addrs []netip.Addr) {
	words := strings.Fields(alias)
	if len(words) < 4 || words[0] != "fairlead" {
		return nil
	}
	for text := range strings.SplitSeq(words[3], ",") {
		if addr, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// holds tells whether an interface has an address.
func (r *reader) holds(link rtnl.Link, addr netip.Addr) bool {
	var own []rtnl.Addr
	err := dump("addresses", func() (err error) {
		own, err = r.handle.AddrList(link, rtnl.FAMILY_ALL)
		return err
	})
	return err == nil && slices.ContainsFunc(own, func(a rtnl.Addr) bool { return addrOf(a.IP) == addr })
}

func (r *reader) byIndex(index int) rtnl.Link {
	for _, link := range r.links {
		if link.Attrs().Index == index {
			return link
		}
	}
	return nil
}

// byName is nil if there is no such interface.
func (r *reader) byName(name string) *trace.Device {
	for _, link := range r.links {
		if link.Attrs().Name == name {
			return r.device(link)
		}
	}
	return nil
}

func (r *reader) device(link rtnl.Link) *trace.Device {
	device := deviceOf(link)
	attrs := link.Attrs()
	if parent := r.byIndex(attrs.ParentIndex); parent != nil && attrs.NetNsID < 0 {
		device.Parent = parent.Attrs().Name
	}
	switch link := link.(type) {
	case *rtnl.Vxlan:
		device.VNI, device.Port, device.Local = uint32(link.VxlanId), uint16(link.Port), addrOf(link.SrcAddr)
		if parent := r.byIndex(link.VtepDevIndex); parent != nil {
			device.Parent = parent.Attrs().Name
		}
	case *rtnl.Iptun:
		device.Local = addrOf(link.Local)
	}
	if attrs.Group == model.PodGroup {
		device.Peer = peerOf(attrs.NetNsID, attrs.ParentIndex)
	}
	if device.Tunnel() == trace.ByIPIP {
		device.Parent = "" // of a pair with programs it is the other end
	}
	return device
}

func deviceOf(link rtnl.Link) *trace.Device {
	attrs := link.Attrs()
	device := &trace.Device{
		Name: attrs.Name, Kind: link.Type(), MTU: attrs.MTU, Alias: attrs.Alias,
		Up:      attrs.Flags&net.FlagUp != 0,
		Carrier: attrs.RawFlags&unix.IFF_LOWER_UP != 0,
		NoARP:   attrs.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) != 0,
	}
	device.MAC, _ = macOf(attrs.HardwareAddr)
	return device
}

// peerOf reads the pod's side of a pair from its namespace, which it does not
// enter: Linux 5.0 and newer answer for a namespace that they have given a
// number here. It is nil if it cannot be read.
func peerOf(namespace, index int) *trace.Device {
	if namespace < 0 || index == 0 {
		return nil
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(namespace))))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(answers) == 0 {
		return nil
	}
	link, err := rtnl.LinkDeserialize(nil, answers[0])
	if err != nil {
		return nil
	}
	return deviceOf(link)
}

// number reads a setting below /proc/sys; 0 if there is none.
func number(path string) int {
	content, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return 0
	}
	value, _ := strconv.Atoi(strings.TrimSpace(string(content)))
	return value
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// prefixOf is invalid for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func macOf(addr net.HardwareAddr) (model.MAC, bool) {
	if len(addr) != len(model.MAC{}) {
		return model.MAC{}, false
	}
	return model.MAC(addr), true
}
