package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// The gateways of every pod: on the host side of each veth pair, so that the
// host answers ARP and neighbour solicitations for its own address and needs no
// proxy, which would make the first packet wait.
var (
	gateways = [...]netip.Prefix{
		model.IPv4: netip.MustParsePrefix("169.254.1.1/32"),
		model.IPv6: netip.MustParsePrefix("fe80::1/64"),
	}
	defaults = [...]netip.Prefix{
		model.IPv4: netip.MustParsePrefix("0.0.0.0/0"),
		model.IPv6: netip.MustParsePrefix("::/0"),
	}
)

// veth is the pair that connects one pod.
type veth struct {
	*model.Attachment
	netns *os.File // the pod's
	mtu   int      // bytes
}

// devicePrefix begins the name of the host side of each pair; a hash follows.
const devicePrefix = "fl"

// deviceName is the same for the same attachment, whenever it is asked for. It
// has 15 bytes, as many as a name may have.
func deviceName(key model.AttachmentKey) string {
	sum := sha256.Sum256([]byte(key.ContainerID + "/" + key.Interface))
	return devicePrefix + hex.EncodeToString(sum[:7])[:13]
}

func isPodDevice(name string) bool {
	hash, ok := strings.CutPrefix(name, devicePrefix)
	return ok && len(hash) == 13 && strings.Trim(hash, "0123456789abcdef") == ""
}

// hardware has the addresses of the pair. They are set, not left to chance: udev
// changes those that the kernel chose, after the other side has learned them.
func hardware(key model.AttachmentKey) (host, pod model.MAC) {
	sum := sha256.Sum256([]byte(key.ContainerID + "/" + key.Interface + " hardware"))
	host, pod = model.MAC(sum[:6]), model.MAC(sum[6:12])
	for _, mac := range []*model.MAC{&host, &pod} {
		mac[0] = mac[0]&^0x01 | 0x02 // unicast, locally administered
	}
	return host, pod
}

// create makes the pair and the host's side of it; the pod's is directly in its
// namespace under its final name, so that neither is ever seen elsewhere. On
// failure the caller removes it.
//
// Checksums stay offloaded: the kernels that sent wrong ones after NAT and VXLAN
// are older than 5.8 (https://github.com/projectcalico/calico/issues/3145), and
// those that Fairlead needs are not.
func (v *veth) create() error {
	host, pod := hardware(v.AttachmentKey)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.Group = v.Device, v.mtu, host[:], model.PodGroup
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU, pair.PeerHardwareAddr = v.Interface, uint32(v.mtu), pod[:]
	pair.PeerNamespace = netlink.NsFd(int(v.netns.Fd()))
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer node.Close()
	if err := node.LinkAdd(pair); err != nil {
		return fmt.Errorf("create veth pair %s: %w", v.Device, err)
	}
	if err := node.LinkSetAlias(pair, alias(v.Attachment)); err != nil {
		return fmt.Errorf("label %s: %w", v.Device, err)
	}
	return v.configureHost(node, pair)
}

func (v *veth) configureHost(node *netlink.Handle, link netlink.Link) error {
	_, pod := hardware(v.AttachmentKey)
	for _, setting := range v.hostSysctls() {
		if err := setSysctl(setting.path, setting.value); err != nil && setting.needed {
			return err
		}
	}
	if err := node.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", v.Device, err)
	}
	for _, addr := range v.Addresses {
		if err := node.AddrReplace(link, address(gateways[model.FamilyOf(addr)])); err != nil {
			return fmt.Errorf("give %s the gateway's address: %w", v.Device, err)
		}
		if err := know(node, link, addr, pod); err != nil {
			return err
		}
	}
	return nil
}

// know makes the other end of the link a permanent neighbour. Nobody has to ask
// for it, which takes up to a second on a new link: the kernel joins the groups
// of neighbour discovery when it has noticed the carrier (net/core/link_watch.c
// looks once a second, except for what it calls urgent).
func know(on *netlink.Handle, link netlink.Link, addr netip.Addr, mac model.MAC) error {
	neighbor := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: mac[:],
	}
	if addr == gateways[model.IPv6].Addr() {
		// Of what was learned by way of a gateway that is no router, as path MTUs
		// are, the kernel forgets all every 30 seconds (net.ipv6.route.gc_interval;
		// rt6_age_examine_exception in net/ipv6/route.c).
		neighbor.Flags = netlink.NTF_ROUTER
	}
	err := on.NeighSet(neighbor)
	if err != nil {
		return fmt.Errorf("make %s a neighbour on %s: %w", addr, link.Attrs().Name, err)
	}
	return nil
}

// sysctl is a setting; one that is not needed may be missing or read-only.
type sysctl struct {
	path, value string
	needed      bool
}

func (v *veth) hostSysctls() []sysctl {
	settings := []sysctl{
		// Of IPv4, a pod's packets from addresses that are not routed to it are
		// dropped (RFC 3704 section 2.2), unless conf/all/rp_filter is 2: the
		// kernel takes the greater. IPv6 has no such setting.
		{"ipv4/conf/" + v.Device + "/rp_filter", "1", v.has(model.IPv4)},
		// What a pod says of routers is not believed (a router does not anyway),
		// and the gateway's address is the only link-local one.
		{"ipv6/conf/" + v.Device + "/accept_ra", "0", false},
		{"ipv6/conf/" + v.Device + "/addr_gen_mode", "1", false},
	}
	if v.has(model.IPv6) {
		settings = append(settings, sysctl{"ipv6/conf/" + v.Device + "/disable_ipv6", "0", true})
	}
	return settings
}

func (v *veth) has(family model.Family) bool {
	for _, addr := range v.Addresses {
		if model.FamilyOf(addr) == family {
			return true
		}
	}
	return false
}

// configurePod runs in the pod's namespace.
func (v *veth) configurePod() error {
	pod, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in the pod: %w", err)
	}
	defer pod.Close()
	if v.has(model.IPv6) {
		// Without duplicate address detection of its link-local address, the
		// pod speaks IPv6 at once: nobody else is on the link.
		for _, setting := range [][2]string{
			{"lo/disable_ipv6", "0"}, {v.Interface + "/disable_ipv6", "0"}, {v.Interface + "/accept_dad", "0"},
		} {
			if err := setSysctl("ipv6/conf/"+setting[0], setting[1]); err != nil {
				return fmt.Errorf("enable IPv6 in the pod: %w", err)
			}
		}
	}
	for _, name := range []string{"lo", v.Interface} {
		link, err := pod.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in the pod: %w", name, err)
		}
		if err := pod.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s in the pod: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		for _, addr := range v.Addresses {
			if err := v.connect(pod, link, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// carrierPoll is how often the carrier is looked at, where looking alone does not
// do. A socket for notifications would cost every pod more than this does.
const carrierPoll = 200 * time.Microsecond

// waitCarrier waits until the host's side can send. It was set up before the
// pod's, so its carrier came later, and until a worker of the kernel has noticed
// it drops all packets (net/core/link_watch.c). Since Linux 6.8 looking makes it
// notice (commit facd15dfd691).
func (v *veth) waitCarrier(ctx context.Context) error {
	for {
		link, err := netlink.LinkByName(v.Device)
		if err != nil {
			return fmt.Errorf("look at the carrier of %s: %w", v.Device, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if !pause(ctx, carrierPoll) {
			return fmt.Errorf("wait for the carrier of %s: %w", v.Device, ctx.Err())
		}
	}
}

// connect gives the pod's interface an address and the way out of its family.
func (v *veth) connect(pod *netlink.Handle, link netlink.Link, addr netip.Addr) error {
	family := model.FamilyOf(addr)
	gateway := gateways[family].Addr()
	if err := pod.AddrAdd(link, address(model.HostPrefix(addr))); err != nil {
		return fmt.Errorf("give the pod %s: %w", addr, err)
	}
	index := link.Attrs().Index
	routes := []netlink.Route{
		{LinkIndex: index, Dst: network(defaults[family]), Gw: gateway.AsSlice()},
	}
	if family == model.IPv4 {
		// The link-local network of IPv6 is there already.
		onLink := netlink.Route{LinkIndex: index, Dst: network(model.HostPrefix(gateway)), Scope: netlink.SCOPE_LINK}
		routes = []netlink.Route{onLink, routes[0]}
	}
	for _, route := range routes {
		if err := pod.RouteAdd(&route); err != nil {
			return fmt.Errorf("give the pod its route to %s: %w", route.Dst, err)
		}
	}
	host, _ := hardware(v.AttachmentKey)
	return know(pod, link, gateway, host)
}

// address is one that is usable at once (nodad), and of link scope if it is
// link-local.
func address(prefix netip.Prefix) *netlink.Addr {
	addr := &netlink.Addr{IPNet: network(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if prefix.Addr().IsLinkLocalUnicast() {
		addr.Scope = unix.RT_SCOPE_LINK
	}
	return addr
}

func network(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}

// removeDevice removes a pair by its host side, routes and all. One that is
// gone already is fine: it goes with the pod's namespace.
func removeDevice(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	if err == nil || errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("remove %s: %w", name, err)
}
