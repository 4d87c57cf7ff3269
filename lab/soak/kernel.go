package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	nft "github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
	"github.com/fairlead-net/fairlead/lab/world"
	"github.com/fairlead-net/fairlead/whole"
)

// ourTable is that of the family inet that Fairlead has.
const ourTable = "fairlead"

// kernelView is what the kernel of a node has for the pods on it.
type kernelView struct {
	pods   map[string][]netip.Addr // by namespace/name: what each pod's own link has
	routes map[netip.Addr]string   // the device of the route to one address, by that address
	device map[string]string       // of each pod
}

// lookKernel reads it. pid is of the machine's init: containerd keeps the network
// namespaces of pods below its root. It runs on a thread that may change its
// namespace, in that of the node.
func lookKernel(pid int) (*kernelView, error) {
	v := &kernelView{pods: map[string][]netip.Addr{}, routes: map[netip.Addr]string{}, device: map[string]string{}}
	found, err := whole.List(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	aliases, devices := map[int]string{}, map[int]string{}
	for _, link := range found {
		aliases[link.Attrs().Index] = link.Attrs().Alias
		devices[link.Attrs().Index] = link.Attrs().Name
	}
	routes, err := whole.List(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if addr, ok := netip.AddrFromSlice(route.Dst.IP); ok {
			if ones, bits := route.Dst.Mask.Size(); ones == bits {
				v.routes[addr.Unmap()] = devices[route.LinkIndex]
			}
		}
	}
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/netns/*", pid))
	if err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	for _, path := range paths {
		peer, addrs, err := lookPod(path)
		if err != nil || peer == 0 {
			continue // it goes, or comes
		}
		// fairlead CONTAINER INTERFACE ADDRESSES NAMESPACE/NAME
		words := strings.Fields(aliases[peer])
		if len(words) < 5 || words[0] != "fairlead" {
			continue
		}
		v.pods[words[4]] = append(v.pods[words[4]], addrs...)
		v.device[words[4]] = devices[peer]
	}
	return v, nil
}

// lookPod returns the addresses of a pod's eth0, and the index of its other end.
func lookPod(path string) (peer int, addrs []netip.Addr, err error) {
	netns, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer netns.Close()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, nil, err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return 0, nil, err
	}
	found, err := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	for _, one := range found {
		if addr, ok := netip.AddrFromSlice(one.IP); ok && !addr.IsLinkLocalUnicast() {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return link.Attrs().ParentIndex, addrs, err
}

// countKernel counts what there is in the kernel of the thread's network, and on
// the machine's disk, that pods or Services can leave behind.
func countKernel(pid int) (counts, names, error) {
	c, n := counts{}, names{}
	for _, count := range []func(counts, names) error{countLinks, countRoutes, countNeighbours, countRules} {
		if err := count(c, n); err != nil {
			return nil, nil, err
		}
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	for resource, pattern := range map[string]string{
		"namespaces": "/run/netns/*", "files in /run/fairlead": "/run/fairlead/*/*", "files in /var/lib/fairlead": "/var/lib/fairlead/*",
	} {
		paths, err := filepath.Glob(root + pattern)
		if err != nil {
			return nil, nil, fmt.Errorf("counting %s: %w", resource, err)
		}
		for _, path := range paths {
			n[resource] = append(n[resource], strings.TrimPrefix(path, root))
		}
		c[resource] = int64(len(paths))
	}
	text, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 17 {
		if entries, err := strconv.ParseInt(fields[17], 16, 64); err == nil {
			c["connections"] = entries
		}
	}
	return c, n, nil
}

func countLinks(c counts, n names) error {
	found, err := whole.List(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("listing links: %w", err)
	}
	c["veths"] = 0
	for _, link := range found {
		n["links"] = append(n["links"], link.Attrs().Name+" "+link.Attrs().Alias)
		if link.Type() == "veth" {
			c["veths"]++
		}
	}
	c["links"] = int64(len(found))
	addrs, err := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, addr := range addrs {
		n["addresses of the node"] = append(n["addresses of the node"], addr.IPNet.String())
	}
	c["addresses of the node"] = int64(len(addrs))
	return nil
}

func countRoutes(c counts, n names) error {
	routes, err := whole.List(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	c["routes"] = 0
	for _, route := range routes {
		// The kernel makes those of the local table, and of multicast, by itself.
		if route.Table == unix.RT_TABLE_LOCAL || route.Type == unix.RTN_MULTICAST {
			continue
		}
		c["routes"]++
		// Without the device: a node that has rebooted has others.
		n["routes"] = append(n["routes"], fmt.Sprintf("%s via %s table %d", route.Dst, route.Gw, route.Table))
	}
	rules, err := whole.List(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing rules: %w", err)
	}
	for _, rule := range rules {
		n["routing rules"] = append(n["routing rules"], rule.String())
	}
	c["routing rules"] = int64(len(rules))
	return nil
}

func countNeighbours(c counts, n names) error {
	for resource, family := range map[string]int{"permanent neighbours": unix.AF_UNSPEC, "forwarding entries": unix.AF_BRIDGE} {
		found, err := whole.List(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, family) })
		if err != nil {
			return fmt.Errorf("listing neighbours: %w", err)
		}
		c[resource] = 0
		for _, neighbour := range found {
			// Entries without an address are of multicast.
			if neighbour.State&netlink.NUD_PERMANENT == 0 || neighbour.IP == nil {
				continue
			}
			c[resource]++
			n[resource] = append(n[resource], fmt.Sprintf("%s %s", neighbour.IP, neighbour.HardwareAddr))
		}
	}
	return nil
}

// choiceChains are those that choose one of so many endpoints. One is made when a
// number is met for the first time, and stays (docs/adr/0007).
const choiceChains = "chains by number of endpoints"

// countRules counts tables, and of our own the rules, and the elements of each
// set: without what belongs to choiceChains, which are only counted themselves.
func countRules(c counts, n names) error {
	conn, err := nft.New()
	if err != nil {
		return fmt.Errorf("reaching nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("listing tables of nftables: %w", err)
	}
	c["tables"], c["rules"], c["elements"], c[choiceChains] = int64(len(tables)), 0, 0, 0
	for _, table := range tables {
		if table.Name != ourTable || table.Family != nft.TableFamilyINet {
			continue
		}
		chains, err := conn.ListChainsOfTableFamily(nft.TableFamilyINet)
		if err != nil {
			return fmt.Errorf("listing chains: %w", err)
		}
		for _, chain := range chains {
			if chain.Table.Name != ourTable {
				continue
			}
			if strings.HasPrefix(chain.Name, "services4-") || strings.HasPrefix(chain.Name, "services6-") {
				c[choiceChains]++
				continue
			}
			rules, err := listing.Rules(chain)
			if err != nil {
				return err
			}
			c["rules"] += int64(len(rules))
		}
		sets, err := conn.GetSets(table)
		if err != nil {
			return fmt.Errorf("listing sets: %w", err)
		}
		for _, set := range sets {
			if strings.HasPrefix(set.Name, "__") || slices.Contains([]string{"service-chains4", "service-chains6", "service-answers4", "service-answers6"}, set.Name) {
				continue
			}
			elements, err := conn.GetSetElements(set)
			if err != nil {
				return fmt.Errorf("listing the elements of %s: %w", set.Name, err)
			}
			c["elements"] += int64(len(elements))
			for _, element := range elements {
				n["elements"] = append(n["elements"], fmt.Sprintf("%s %x", set.Name, element.Key))
			}
		}
	}
	return nil
}

// flow is a connection that the kernel leads elsewhere.
type flow struct {
	client, service, endpoint netip.AddrPort
	opening                   bool   // of TCP: nothing has come back yet
	left                      uint32 // seconds until it is forgotten
}

func (f flow) String() string {
	return fmt.Sprintf("from %s to %s, led to %s", f.client, f.service, f.endpoint)
}

// connections are those over a protocol in the thread's network.
func connections(protocol uint8) (all []flow, err error) {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		found, err := whole.List(func() ([]*netlink.ConntrackFlow, error) {
			return netlink.ConntrackTableList(netlink.ConntrackTable, family)
		})
		if err != nil {
			return nil, fmt.Errorf("listing connections: %w", err)
		}
		for _, one := range found {
			f := flow{
				client:   addrPort(one.Forward.SrcIP, one.Forward.SrcPort),
				service:  addrPort(one.Forward.DstIP, one.Forward.DstPort),
				endpoint: addrPort(one.Reverse.SrcIP, one.Reverse.SrcPort),
				left:     one.TimeOut,
			}
			if tcp, ok := one.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
				f.opening = tcp.State == nl.TCP_CONNTRACK_SYN_SENT
			}
			if one.Forward.Protocol == protocol && f.service != f.endpoint {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// lastOpening is the last connection to a Service of which nothing has come back.
func lastOpening(all []flow, service netip.AddrPort) (last flow, ok bool) {
	for _, f := range all {
		if f.opening && f.service == service && (!ok || f.left > last.left) {
			last, ok = f, true
		}
	}
	return last, ok
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// inside runs f in the network of a machine, on a thread that f may take
// elsewhere, with the process id of the machine's init.
func inside(w *world.World, machine string, f func(pid int) error) error {
	machines, err := w.Machines()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(machines, func(m world.MachineState) bool { return m.Name == machine })
	if at < 0 || !machines[at].Running {
		return fmt.Errorf("looking into %s: %w", machine, world.ErrNotRunning)
	}
	return w.Do(machine, func() error { return f(machines[at].PID) })
}
