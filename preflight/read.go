package preflight

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/whole"
)

// ReadNode looks at this machine; root is where its files are, "/" as a rule. What
// cannot be looked at is in Unread, and does not keep it from the rest.
func ReadNode(root, cniConfDir string) (*NodeFacts, error) {
	f := &NodeFacts{Root: os.Geteuid() == 0, Unread: map[string]error{}}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	f.Kernel = unix.ByteSliceToString(name.Release[:])
	f.note("network", f.readLinks())
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		f.note("uplink", f.readRoutes(family))
	}
	for _, kind := range []string{"tcp", "udp"} {
		f.Ports = append(f.Ports, readPorts(kind, "/proc/net/"+kind)...)
		f.Ports = append(f.Ports, readPorts(kind, "/proc/net/"+kind+"6")...)
	}
	f.note("cni", f.readConfigs(root, cniConfDir))
	f.note("disk", f.readDisks(root))
	state, err := unix.Adjtimex(&unix.Timex{})
	f.Unsynced = err == nil && state == unix.TIME_ERROR
	if f.Root {
		f.SysctlsFixed = unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK) != nil
		others := nftables.NewFirewall()
		firewalls, err := others.Survey()
		if err == nil {
			f.Drops = firewalls.Drops
		}
		f.note("firewall", err)
		f.Legacy, err = others.Legacy()
		f.note("firewall", err)
		f.note("modules", f.tryKernel())
	}
	return f, nil
}

// note keeps why facts for a check are missing, if they are.
func (f *NodeFacts) note(check string, err error) {
	if err != nil {
		f.Unread[check] = errors.Join(f.Unread[check], err)
	}
}

func (f *NodeFacts) readConfigs(root, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for CNI configurations: %w", err)
	}
	for _, entry := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(entry.Name())) {
			f.Configs = append(f.Configs, filepath.Join(strings.TrimPrefix(dir, strings.TrimSuffix(root, "/")), entry.Name()))
		}
	}
	return nil
}

func (f *NodeFacts) readDisks(root string) error {
	var disk, run unix.Statfs_t
	if err := unix.Statfs(filepath.Join(root, "run"), &run); err == nil {
		f.RunOnDisk = run.Type != unix.TMPFS_MAGIC
	}
	if err := unix.Statfs(filepath.Join(root, "var/lib"), &disk); err != nil {
		return fmt.Errorf("look at /var/lib: %w", err)
	}
	f.FreeBytes, f.ReadOnly = disk.Bavail*uint64(disk.Bsize), disk.Flags&unix.ST_RDONLY != 0
	return nil
}

func (f *NodeFacts) readLinks() error {
	links, err := whole.List(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		f.Interfaces = append(f.Interfaces, link.Attrs().Name)
	}
	return nil
}

// readRoutes finds the uplinks of a family, IPv4 first, and whether the node's
// address can be on them.
func (f *NodeFacts) readRoutes(family int) error {
	routes, err := whole.List(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	uplinks := uplinksOf(routes)
	var names []string
	var indexes []int
	for _, link := range uplinks {
		names, indexes = append(names, link.Attrs().Name), append(indexes, link.Attrs().Index)
	}
	if f.Uplink == "" && len(uplinks) > 0 {
		f.Uplink, f.MTU = strings.Join(names, ", "), uplinks[0].Attrs().MTU
		for _, link := range uplinks {
			f.MTU = min(f.MTU, link.Attrs().MTU)
		}
	}
	if len(uplinks) > 0 {
		return f.readAddresses(family, indexes)
	}
	return nil
}

// uplinksOf are the interfaces of the first default route: one for each of its next
// hops.
func uplinksOf(routes []netlink.Route) (uplinks []netlink.Link) {
	for _, route := range routes {
		ones := 0
		if route.Dst != nil {
			ones, _ = route.Dst.Mask.Size()
		}
		if ones > 0 || route.Type != unix.RTN_UNICAST {
			continue
		}
		hops := route.MultiPath
		if len(hops) == 0 {
			hops = []*netlink.NexthopInfo{{LinkIndex: route.LinkIndex}}
		}
		for _, hop := range hops {
			if link, err := netlink.LinkByIndex(hop.LinkIndex); err == nil {
				uplinks = append(uplinks, link)
			}
		}
		if len(uplinks) > 0 {
			break
		}
	}
	return uplinks
}

// readAddresses looks for the addresses of a family whose uplinks have none.
func (f *NodeFacts) readAddresses(family int, uplinks []int) error {
	addrs, err := whole.List(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, family) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var bare []netip.Addr
	for _, entry := range addrs {
		addr, ok := netip.AddrFromSlice(entry.IP)
		if !ok || !addr.Unmap().IsGlobalUnicast() {
			continue
		}
		if slices.Contains(uplinks, entry.LinkIndex) {
			f.OnUplink = true
			return nil
		}
		if link, err := netlink.LinkByIndex(entry.LinkIndex); err == nil && (link.Attrs().Name == "lo" || link.Type() == "dummy") {
			bare = append(bare, addr.Unmap())
		}
	}
	f.Bare = append(f.Bare, bare...)
	return nil
}

// The states of sockets that have a port for themselves (net/tcp_states.h).
const (
	listening   = "0A" // of TCP
	unconnected = "07" // of UDP
)

// readPorts reads the table of sockets of a protocol; one that is missing is
// empty.
func readPorts(protocol, path string) (ports []Port) {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 4 || fields[3] != listening && fields[3] != unconnected {
			continue
		}
		number, err := hex.DecodeString(fields[1][strings.LastIndexByte(fields[1], ':')+1:])
		if err == nil && len(number) == 2 {
			ports = append(ports, Port{protocol, uint16(number[0])<<8 | uint16(number[1])})
		}
	}
	return ports
}

// tryKernel tries what Fairlead asks of the kernel in a network namespace that
// goes with its thread.
func (f *NodeFacts) tryKernel() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		f.Missing = nftables.Missing()
		attrs := func(name string) netlink.LinkAttrs {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			return attrs
		}
		for _, link := range []netlink.Link{
			&netlink.Veth{LinkAttrs: attrs("a"), PeerName: "b"},
			&netlink.Vxlan{LinkAttrs: attrs("v"), VxlanId: 1, Port: 4789},
		} {
			if err := netlink.LinkAdd(link); errors.Is(err, unix.EOPNOTSUPP) {
				f.NoLink = append(f.NoLink, link.Type())
			}
		}
		result <- nil
	}()
	return <-result
}
