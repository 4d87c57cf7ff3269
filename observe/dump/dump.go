// Package dump reads what a node's kernel holds for the network, for people who
// look for a fault afterwards: links, addresses, routes, neighbours, tunnels,
// our nftables table, and the settings that matter. It changes nothing, and
// judges nothing. It reads no file that could have a secret in it. The network
// namespace is that of the calling thread. It may be called concurrently.
package dump

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/whole"
)

// Kernel is what was read. It is printed as JSON and only grows.
type Kernel struct {
	Release   string            `json:"release"` // of Linux
	Arch      string            `json:"arch"`
	Links     []Link            `json:"links"`
	Routes    []string          `json:"routes"` // of all tables but local, as ip route has them
	Rules     []string          `json:"rules"`
	Neighbors []Neighbor        `json:"neighbors"` // with forwarding entries of tunnels
	Sysctls   map[string]string `json:"sysctls"`
	Tables    []Table           `json:"tables"` // of nftables
	Errors    []string          `json:"errors,omitempty"`
	Truncated []string          `json:"truncated,omitempty"` // what there was more of
}

// Link is a network interface.
type Link struct {
	Index     int               `json:"index"`
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	MTU       int               `json:"mtu"`
	State     string            `json:"state"`
	Flags     string            `json:"flags"`
	MAC       string            `json:"mac,omitempty"`
	Alias     string            `json:"alias,omitempty"`
	Master    int               `json:"master,omitempty"`
	Group     uint32            `json:"group,omitempty"`
	Tunnel    map[string]string `json:"tunnel,omitempty"`
	Addresses []string          `json:"addresses,omitempty"`
	Counters  map[string]uint64 `json:"counters,omitempty"`
}

// Neighbor is a neighbour, or what a tunnel knows of a MAC.
type Neighbor struct {
	Device  string `json:"device"`
	Address string `json:"address,omitempty"`
	MAC     string `json:"mac,omitempty"`
	State   string `json:"state"`
	Bridge  bool   `json:"bridge,omitempty"` // a forwarding entry
}

// most items of a kind are given: a node of a cluster of 5,000 has less.
const most = 20_000

// Read reads the kernel. What cannot be read is among the errors.
func Read() *Kernel {
	k := &Kernel{Arch: runtime.GOARCH}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		k.Release = unix.ByteSliceToString(name.Release[:])
	}
	names := k.readLinks()
	k.readRoutes(names)
	k.readNeighbors(names)
	k.readSysctls(names)
	k.readTables()
	return k
}

func (k *Kernel) failed(what string, err error) {
	if err != nil {
		k.Errors = append(k.Errors, fmt.Sprintf("%s: %v", what, err))
	}
}

// limit keeps the first items, and says so.
func limit[T any](k *Kernel, what string, items []T) []T {
	if len(items) <= most {
		return items
	}
	k.Truncated = append(k.Truncated, fmt.Sprintf("%s: the first %d of %d", what, most, len(items)))
	return items[:most]
}

// readLinks returns the names of interfaces by index.
func (k *Kernel) readLinks() map[int]string {
	all, err := whole.List(netlink.LinkList)
	k.failed("links", err)
	addresses, err := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	k.failed("addresses", err)
	names, of := map[int]string{}, map[int][]string{}
	for _, address := range addresses {
		of[address.LinkIndex] = append(of[address.LinkIndex], address.IPNet.String())
	}
	for _, link := range all {
		a := link.Attrs()
		names[a.Index] = a.Name
		l := Link{
			Index: a.Index, Name: a.Name, Kind: link.Type(), MTU: a.MTU, State: a.OperState.String(), Flags: a.Flags.String(),
			MAC: a.HardwareAddr.String(), Alias: a.Alias, Master: a.MasterIndex, Group: a.Group, Addresses: of[a.Index], Tunnel: tunnelOf(link),
		}
		if s := a.Statistics; s != nil {
			l.Counters = map[string]uint64{
				"rxBytes": s.RxBytes, "rxPackets": s.RxPackets, "rxErrors": s.RxErrors, "rxDropped": s.RxDropped,
				"txBytes": s.TxBytes, "txPackets": s.TxPackets, "txErrors": s.TxErrors, "txDropped": s.TxDropped,
			}
		}
		k.Links = append(k.Links, l)
	}
	slices.SortFunc(k.Links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	k.Links = limit(k, "links", k.Links)
	return names
}

func tunnelOf(link netlink.Link) map[string]string {
	switch l := link.(type) {
	case *netlink.Vxlan:
		return map[string]string{
			"vni": fmt.Sprint(l.VxlanId), "port": fmt.Sprint(l.Port), "local": address(l.SrcAddr),
			"learning": fmt.Sprint(l.Learning), "device": fmt.Sprint(l.VtepDevIndex),
		}
	case *netlink.Iptun:
		return map[string]string{"local": address(l.Local), "remote": address(l.Remote), "device": fmt.Sprint(l.Link), "external": fmt.Sprint(l.FlowBased)}
	case *netlink.Tuntap:
		return map[string]string{"mode": l.Mode.String()}
	default:
		return nil
	}
}

func address(ip net.IP) string {
	if ip == nil {
		return ""
	}
	return ip.String()
}

func (k *Kernel) readRoutes(names map[int]string) {
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := whole.List(func() ([]netlink.Route, error) {
			// All tables: without RT_FILTER_TABLE only main is listed.
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		k.failed("routes", err)
		for _, r := range routes {
			if r.Table != unix.RT_TABLE_LOCAL {
				lines = append(lines, routeText(&r, names))
			}
		}
		rules, err := whole.List(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		k.failed("rules", err)
		for _, rule := range rules {
			k.Rules = append(k.Rules, rule.String())
		}
	}
	k.Routes = limit(k, "routes", lines)
}

func routeText(r *netlink.Route, names map[int]string) string {
	to := "default"
	if r.Dst != nil {
		to = r.Dst.String()
	}
	words := []string{to}
	add := func(word, value string) {
		if value != "" {
			words = append(words, word, value)
		}
	}
	if r.Type != unix.RTN_UNICAST {
		add("type", routeType(r.Type))
	}
	add("via", address(r.Gw))
	add("dev", names[r.LinkIndex])
	add("proto", r.Protocol.String())
	if r.Scope != netlink.SCOPE_UNIVERSE {
		add("scope", r.Scope.String())
	}
	add("src", address(r.Src))
	if r.Priority != 0 {
		add("metric", fmt.Sprint(r.Priority))
	}
	if r.MTU != 0 {
		add("mtu", fmt.Sprint(r.MTU))
	}
	if r.Flags != 0 {
		add("flags", strings.Join(r.ListFlags(), ","))
	}
	if r.Table != unix.RT_TABLE_MAIN {
		add("table", fmt.Sprint(r.Table))
	}
	for _, hop := range r.MultiPath {
		add("nexthop", address(hop.Gw)+" dev "+names[hop.LinkIndex])
	}
	return strings.Join(words, " ")
}

func routeType(kind int) string {
	switch kind {
	case unix.RTN_LOCAL:
		return "local"
	case unix.RTN_BROADCAST:
		return "broadcast"
	case unix.RTN_ANYCAST:
		return "anycast"
	case unix.RTN_MULTICAST:
		return "multicast"
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	default:
		return fmt.Sprint(kind)
	}
}

func (k *Kernel) readNeighbors(names map[int]string) {
	var all []Neighbor
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6, unix.AF_BRIDGE} {
		entries, err := whole.List(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, family) })
		k.failed("neighbours", err)
		for _, n := range entries {
			all = append(all, Neighbor{
				Device: names[n.LinkIndex], Address: address(n.IP), MAC: n.HardwareAddr.String(),
				State: neighborState(n.State), Bridge: family == unix.AF_BRIDGE,
			})
		}
	}
	k.Neighbors = limit(k, "neighbours", all)
}

func neighborState(state int) string {
	for value, name := range map[int]string{
		netlink.NUD_PERMANENT: "permanent", netlink.NUD_REACHABLE: "reachable", netlink.NUD_STALE: "stale",
		netlink.NUD_DELAY: "delay", netlink.NUD_PROBE: "probe", netlink.NUD_FAILED: "failed",
		netlink.NUD_NOARP: "noarp", netlink.NUD_INCOMPLETE: "incomplete", netlink.NUD_NONE: "none",
	} {
		if state == value {
			return name
		}
	}
	return fmt.Sprintf("%#x", state)
}

// readSysctls reads the settings that decide about packets: those of all, and of
// each interface.
func (k *Kernel) readSysctls(names map[int]string) {
	k.Sysctls = map[string]string{}
	paths := []string{
		"net/ipv4/ip_forward", "net/ipv4/ip_local_port_range", "net/core/netdev_max_backlog",
		"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables",
		"net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max",
		"net/ipv4/neigh/default/gc_thresh3", "net/ipv6/neigh/default/gc_thresh3", "net/ipv6/route/max_size",
	}
	interfaces := []string{"all", "default"}
	for _, name := range names {
		interfaces = append(interfaces, name)
	}
	for _, name := range interfaces {
		for _, setting := range []string{"ipv4/conf/%s/rp_filter", "ipv4/conf/%s/forwarding", "ipv4/conf/%s/route_localnet",
			"ipv4/conf/%s/arp_ignore", "ipv6/conf/%s/forwarding", "ipv6/conf/%s/accept_ra", "ipv6/conf/%s/disable_ipv6"} {
			paths = append(paths, filepath.Join("net", fmt.Sprintf(setting, name)))
		}
	}
	for _, path := range paths {
		if text, err := os.ReadFile(filepath.Join("/proc/sys", path)); err == nil { // not every kernel has all
			k.Sysctls[path] = strings.TrimSpace(string(text))
		}
	}
}
